"""COCO keypoints in a database on disk, so that memory holds one annotation at a time."""

import contextlib
import hashlib
import json
import math
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from pipelines.errors import Unusable
from pipelines.readers.json_stream import members

__all__ = ["CocoDatabase", "json_key", "opened"]

_FORM = "COCO keypoints"

# Characters of an id or a path, and keypoints: more than anyone has, so that an entry is small.
_LONGEST_NAME = 4096
_MOST_KEYPOINTS = 10_000
_MOST_CATEGORIES = 1000
_WIDEST = 1_000_000

# Ids and names are JSON text, so that an id 1 is not an id "1". Nothing here outlives the process.
_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -16384;
CREATE TABLE images (
  number INTEGER PRIMARY KEY, file, id, name, size, ambiguous DEFAULT 0, people DEFAULT 0,
  UNIQUE (file, id)
);
CREATE TABLE annotations (
  number INTEGER PRIMARY KEY, file, position, id, image, category, crowd, labels, repeated
);
CREATE TABLE seen (scope, id, PRIMARY KEY (scope, id)) WITHOUT ROWID;
"""
_ADD_IMAGE = """
INSERT INTO images (file, id, name, size) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET ambiguous = ambiguous OR name IS NOT excluded.name
"""
_ADD_ANNOTATION = """
INSERT INTO annotations (file, position, id, image, category, crowd, labels, repeated)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
# An id that is a number in one place may be a text in another, where that leaves no doubt.
_OTHER_FORM = """
CASE WHEN {0} LIKE '"%' THEN substr({0}, 2, length({0}) - 2) ELSE '"' || {0} || '"' END
"""
_MATCH_IMAGES = f"""
UPDATE annotations SET image = {_OTHER_FORM.format("image")}
WHERE file = ?1 AND NOT EXISTS (SELECT 1 FROM images AS i WHERE i.file = ?1 AND i.id = image)
AND EXISTS (SELECT 1 FROM images AS i WHERE i.file = ?1 AND i.id = {_OTHER_FORM.format("image")})
"""
_MATCH_CATEGORIES = f"""
UPDATE annotations SET category = {_OTHER_FORM.format("category")}
WHERE file = ?1 AND category NOT IN (SELECT value FROM json_each(?2))
AND {_OTHER_FORM.format("category")} IN (SELECT value FROM json_each(?2))
"""
_INDEX = """
CREATE INDEX IF NOT EXISTS by_image ON annotations (file, image, category, crowd, repeated)
"""
_COUNT_PEOPLE = """
UPDATE images SET people = (
  SELECT COUNT(*) FROM annotations AS a WHERE a.file = images.file AND a.image = images.id
  AND a.category IN (SELECT value FROM json_each(?)) AND NOT a.crowd AND NOT a.repeated
) WHERE file = ?
"""
_ROWS = """
SELECT a.*, i.name, i.size, i.ambiguous, i.people
FROM annotations AS a LEFT JOIN images AS i ON i.file = a.file AND i.id = a.image
ORDER BY a.file, i.number IS NULL, i.number, a.number
"""


@contextlib.contextmanager
def opened() -> Iterator["CocoDatabase"]:
    """Yield an empty database in the directory for temporary files, and remove it at the end.

    Raises:
      OSError: if it cannot be written, or be written to while it is open.
    """
    with tempfile.TemporaryDirectory(prefix="tfhuber-coco-") as directory:
        try:
            with contextlib.closing(sqlite3.connect(f"{directory}/annotations.db")) as connection:
                yield CocoDatabase(connection)
        except sqlite3.Error as error:
            raise OSError(
                f"the database in {directory} failed ({error}); TMPDIR can name another directory"
            ) from error


class CocoDatabase:
    """Images and annotations of several files, which have a number each."""

    def __init__(self, connection: sqlite3.Connection):
        connection.row_factory = sqlite3.Row
        connection.executescript(_TABLES)
        self._connection = connection

    def add(
        self, file: int, stream: BinaryIO, path: str, folder: str | None, attributes: Iterable[str]
    ) -> list[dict]:
        """Add a file's images and annotations; return its categories, with their ids as JSON text.

        Args:
          file: its number.
          stream: its bytes.
          path: what errors call it.
          folder: what its images' names are below, if anything.
          attributes: the flags that are wanted of each annotation.

        Raises:
          ValueError: if it is not COCO's JSON.
        """
        categories: list[dict] = []
        position = 0
        for key, number, value in members(stream, path, _FORM):
            if key not in ("images", "annotations", "categories"):
                continue
            if number is None:
                raise ValueError(f"{path} is not {_FORM}: its {key} are no list")
            if key == "annotations":
                position += 1
                self._add_annotation(file, position, value, attributes)
            elif isinstance(value, dict) and (id := json_key(value.get("id"))):
                if key == "images":
                    name = _image_name(value, folder)
                    self._connection.execute(_ADD_IMAGE, (file, id, name, _size(value)))
                elif len(categories) < _MOST_CATEGORIES:
                    kept = {name: value.get(name) for name in ("name", "keypoints")}
                    categories.append({"id": id, **kept})
                else:
                    raise ValueError(f"{path} has more than {_MOST_CATEGORIES:,} categories")
        if not position:
            raise ValueError(f"{path} is not {_FORM}: it has no annotations")
        return categories

    def match_ids(self, file: int, categories: Iterable[str]) -> None:
        """Let a file's annotations name images and categories as these name themselves: 1 or "1"."""
        self._connection.execute(_MATCH_IMAGES, (file,))
        self._connection.execute(_MATCH_CATEGORIES, (file, json.dumps(list(categories))))

    def count_people(self, file: int, categories: Iterable[str]) -> None:
        """Count, for each image of a file, the annotations of these categories that are no crowds."""
        self._connection.execute(_INDEX)
        self._connection.execute(_COUNT_PEOPLE, (json.dumps(list(categories)), file))

    def rows(self) -> Iterator[sqlite3.Row]:
        """Yield all annotations by file, image and position; those without an image come last in a file.

        A row has `file`, `position` (from 1), `id` (None if it has none, or that of another one before),
        `image`, `category`, `crowd`, `labels` (JSON text; None if the annotation is no object),
        `repeated` (whether the file had the same with its id before), and of its image `name` (None if
        it is unknown), `size` (JSON text or None), `ambiguous` and `people`.
        """
        return self._connection.execute(_ROWS)

    def is_new(self, scope: int | str, id: str) -> bool:
        """Return whether an id comes in that scope for the first time."""
        added = self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (scope, id))
        return added.rowcount == 1

    def _add_annotation(
        self, file: int, position: int, value: Any, attributes: Iterable[str]
    ) -> None:
        annotation = value if isinstance(value, dict) else {}
        names = ("id", "image_id", "category_id")
        id, image, category = (json_key(annotation.get(name)) for name in names)
        crowd = annotation.get("iscrowd") in (1, "1")
        labels = json.dumps(_labels(annotation, attributes)) if isinstance(value, dict) else None
        repeated = False
        if id is not None:
            content = hashlib.sha256(f"{id} {image} {category} {labels}".encode()).hexdigest()
            repeated = not self.is_new(f"content {file}", content)
            if not self.is_new(file, id) and not repeated:
                id = None
        row = (file, position, id, image, category, crowd, labels, repeated)
        self._connection.execute(_ADD_ANNOTATION, row)


def json_key(value: Any) -> str | None:
    """Return the JSON text, without lone surrogates, of what can be an id or a name; else None.

    A whole number is the same with and without a decimal point.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) not in (int, str):
        return None
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST_NAME else None


def _image_name(image: dict, folder: str | None) -> str | None:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        return None
    return json_key(f"{folder}/{name}" if folder else name)


def _size(image: dict) -> str | None:
    """Return width and height as JSON text; None if they are no whole numbers of pixels."""
    size = [_float(image.get(side)) for side in ("width", "height")]
    if not all(side.is_integer() and 1 <= side < _WIDEST for side in size):
        return None
    return json.dumps(list(map(int, size)))


def _labels(annotation: dict, attributes: Iterable[str]) -> dict:
    """Return what is kept of an annotation: `keypoints`, `box` and `attributes`, or its `fault`."""
    try:
        return {
            "keypoints": _keypoints(annotation.get("keypoints")),
            "box": _box(annotation.get("bbox")),
            "attributes": _flags(annotation.get("attributes"), attributes),
        }
    except Unusable as unusable:
        return {"fault": [unusable.reason, unusable.detail]}


def _keypoints(values: Any) -> list[float]:
    if values is None or values == []:
        raise Unusable("unlabelled", "there are no keypoints")
    if not isinstance(values, list) or any(isinstance(value, (list, dict)) for value in values):
        raise Unusable("malformed_annotation", "keypoints are no list of numbers")
    if len(values) > 3 * _MOST_KEYPOINTS:
        raise Unusable("wrong_keypoint_count", f"keypoints are {len(values):,} numbers")
    return list(map(_float, values))


def _box(values: Any) -> list[float] | None:
    """Return the four numbers, which need not be those of a box; None if it is something else."""
    if not isinstance(values, list) or len(values) != 4:
        return None
    return list(map(_float, values))


def _flags(values: Any, names: Iterable[str]) -> list[int]:
    values = values if isinstance(values, dict) else {}
    flags = [values.get(name, 0) for name in names]
    if not all(isinstance(flag, (int, float)) and flag in (0, 1) for flag in flags):
        raise Unusable("bad_attribute", "an attribute is not 0, 1, false or true")
    return list(map(int, flags))


def _float(value: Any) -> float:
    """Return a number, also one that is written as a text; NaN for anything else."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return math.nan
