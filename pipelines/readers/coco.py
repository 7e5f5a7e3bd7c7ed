"""The reader of COCO keypoints JSON: anyone's own landmarks, beside a description of them.

`docs/bring_your_own_data.md` says how such a data set is laid out and which of its fields are read.
"""

import json
import posixpath
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.errors import Unusable
from pipelines.readers.annotation import Entry, Labels, check_box, check_points
from pipelines.readers.coco_database import CocoDatabase, opened
from pipelines.storage import Source, SourceFiles, exists, is_local, open_file
from tfhuber.landmarks.known_sets import LANDMARK_SETS, LandmarkSet, load, parse

__all__ = ["Coco"]

_SPLITS = ("train", "valid", "test")
_LANDMARKS = "landmarks.json"
_HELP = "docs/bring_your_own_data.md says how to lay out a data set of your own"


@dataclass(frozen=True)
class Coco:
    """The reader (`pipelines.readers.base.Reader`) of keypoints in COCO's JSON.

    Keypoints become landmarks by their names, or by their order if the file does not name them. Those
    of visibility 1 and 2 are labelled. Coordinates are taken as they are.

    Attributes:
      landmark_set: what is wanted of the keypoints.
      annotations: (split, file) pairs; files are below the source's directory.
      images: the folder of the images below the source's directory; "" for the directory itself.
      category: the name of the annotations' category; None for the only one with keypoints.
      folders: (split, folder below `images`) pairs, if each split's images have a folder.

    Example:
      >>> Coco.from_options(Source("coco"), "coco", ["test=test_coco.json"]).lists
      ('test_coco.json',)
    """

    landmark_set: LandmarkSet
    annotations: tuple[tuple[str, str], ...]
    images: str = "images"
    category: str | None = None
    folders: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_options(
        cls,
        source: Source,
        landmarks: str | None = None,
        annotations: list[str] | None = None,
        images: list[str] | None = None,
        category: str | None = None,
    ) -> "Coco":
        """Return the reader that a command line describes.

        Args:
          source: the data set.
          landmarks: a known set's name or a JSON file; None for `landmarks.json` in the source.
          annotations: `SPLIT=FILE`s; None for those of `annotations/SPLIT.json` that there are.
          images: a folder, or a `SPLIT=FOLDER` for each split; None for `images` if there is one, or
            else the source itself.
          category: as the attribute.

        Raises:
          ValueError: in one line that says what is missing or wrong.
        """
        if annotations:
            files = [_assignment("--annotations", text) for text in annotations]
        else:
            usual = [(split, f"annotations/{split}.json") for split in _SPLITS]
            files = [(split, name) for split, name in usual if source.has(name)]
        if not files:
            raise ValueError(
                f"{source.root} has none of annotations/train.json, valid.json and test.json; name "
                f"the files with --annotations SPLIT=FILE. {_HELP}"
            )
        folder, folders = _folders(source, images, {split for split, _ in files})
        for name in (*(file for _, file in files), folder, *folders.values()):
            if name and not source.has(name):
                raise ValueError(f"{name} is missing in {source.root}. {_HELP}")
        landmark_set = _landmark_set(source, landmarks)
        if landmark_set.normalizer == "reader":
            raise ValueError(
                f"the normalizer of {landmark_set.name!r} is not known from COCO's files: nothing could "
                'be scored; let it be "box" or a distance'
            )
        return cls(landmark_set, tuple(files), folder, category, tuple(folders.items()))

    @property
    def lists(self) -> tuple[str, ...]:
        """Names of the annotation files, each once."""
        return tuple(dict.fromkeys(file for _, file in self.annotations))

    @property
    def validation_fraction(self) -> float:
        """A tenth where there is nothing but a training split, else none."""
        return 0.1 if {split for split, _ in self.annotations} == {"train"} else 0.0

    def photograph(self, image: str) -> str:
        """Return the image itself."""
        return image

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield every annotation, in the order of the images, so that an image's are together.

        Each file is read once, into a database in the directory for temporary files, which takes
        about the room that the keypoints take in the files; memory does not grow with either. An
        entry's id is `image#id`, with the annotation's id as JSON has it.

        Raises:
          ValueError: naming the file that does not hold COCO keypoints of these landmarks.
          OSError: if a file cannot be read, or the database cannot be written.
        """
        attributes, folders = self.landmark_set.attributes, dict(self.folders)
        with opened() as database:
            categories = []
            for file, (split, name) in enumerate(self.annotations):
                path = source.path(name)
                with source.open(name) as stream:
                    known = database.add(file, stream, path, folders.get(split), attributes)
                categories.append(_Category.choose(known, self.category, self.landmark_set, path))
            for file, category in enumerate(categories):
                database.count_people(file, category.id)
            for row in database.rows():
                yield self._entry(row, categories[row["file"]], database)

    def labels(self, entry: Entry, source: SourceFiles) -> Labels:
        """Return the labels of an entry; raise `Unusable` with the reason if they cannot be used."""
        values = entry.labels
        if "fault" in values:
            raise Unusable(*values["fault"])
        keypoints = np.array(values["keypoints"], np.float64)
        points, visibility = keypoints[:, :2], keypoints[:, 2]
        if not np.all(np.isin(visibility, (0, 1, 2))):
            raise Unusable("bad_visibility", "a keypoint's visibility is not 0, 1 or 2")
        if not visibility.any():
            raise Unusable("unlabelled", "no landmark is labelled")
        weights = (visibility > 0).astype(np.float64)
        points = np.where(weights[:, None] > 0, points, 0.0)
        check_points(points)
        x, y, width, height = values["box"]
        box = np.array([x, y, x + width, y + height])
        check_box(box)
        length = self.landmark_set.normalizer_length(points, weights, box)
        return Labels(points, weights, box, length, tuple(values["attributes"]), values["people"])

    def _entry(self, row: sqlite3.Row, category: "_Category", database: CocoDatabase) -> Entry:
        split, name = self.annotations[row["file"]]
        image = json.loads(row["name"] or '""')
        position = f"annotations[{row['position']}]"
        id = f"{image}#{row['id'] or position}"
        fault = _fault(row, category)
        if not fault and not database.is_new("all files", id):
            fault = ["duplicate_id", "the same annotation of this image is in an earlier file"]
        labels = {"fault": fault} if fault else category.labels(row)
        return Entry(id, split, image, name, position, labels)


@dataclass(frozen=True)
class _Category:
    """The category whose annotations are wanted.

    Attributes:
      id: as JSON has it.
      count: how many keypoints its annotations have.
      order: of each landmark, its place among them.
    """

    id: str
    count: int
    order: tuple[int, ...]

    @classmethod
    def choose(
        cls, categories: list[dict], name: str | None, wanted: LandmarkSet, path: str
    ) -> "_Category":
        """Return the category of that name, or the only one with keypoints; else ValueError."""
        if name is None:
            found = [c for c in categories if c.get("keypoints")] or categories
        else:
            found = [c for c in categories if c.get("name") == name]
        if len(found) != 1:
            which = "" if name is None else f", not {len(found)} that are called {name!r}"
            known = ", ".join(f"{c.get('name')!r:.60}" for c in categories[:20]) or "none"
            if not categories:
                raise ValueError(f"{path} is not COCO keypoints: it has no categories")
            raise ValueError(
                f"{path}: --category must choose one category{which}; there are: {known}"
            )
        (category,) = found
        names = category.get("keypoints")
        names = [str(name) for name in names] if isinstance(names, list) else []
        order = _order(names, wanted, path)
        return cls(category["id"], len(names) or wanted.count, order)

    def labels(self, row: sqlite3.Row) -> dict:
        """Return the JSON that `Coco.labels` reads: the keypoints in the landmarks' order, or the fault."""
        values = json.loads(row["labels"])
        if "fault" in values:
            return values
        numbers = values["keypoints"]
        if len(numbers) != 3 * self.count:
            detail = f"keypoints are {len(numbers)} numbers instead of {3 * self.count}"
            return {"fault": ["wrong_keypoint_count", detail]}
        keypoints = [numbers[3 * place : 3 * place + 3] for place in self.order]
        return values | {"keypoints": keypoints, "people": row["people"]}


def _order(names: list[str], wanted: LandmarkSet, path: str) -> tuple[int, ...]:
    """Return each landmark's place among keypoints of these names; without names, the order is the same."""
    missing = [name for name in wanted.names if names.count(name) != 1]
    if not missing:
        return tuple(map(names.index, wanted.names))
    numbered = len(names) == wanted.count and all(name.isdigit() for name in names)
    if names and not numbered:
        raise ValueError(
            f"{path} must name each landmark of {wanted.name!r} once, and does not so name "
            f"{', '.join(missing[:8])}; its keypoints are {', '.join(names[:8])!r:.400}"
        )
    return tuple(range(wanted.count))


def _fault(row: sqlite3.Row, category: _Category) -> list[str] | None:
    """Return why an annotation is not wanted, whatever its labels; None if it is."""
    if row["labels"] is None:
        return ["malformed_annotation", "it is no object"]
    if row["id"] is None:
        return ["no_id", "its id is no whole number and no short text"]
    if row["repeated"]:
        return ["duplicate_id", "an annotation before it has the same id"]
    if row["name"] is None:
        return ["no_image_entry", f"no image with a file_name has id {row['image']!s:.60}"]
    if row["ambiguous"]:
        return ["duplicate_image", f"images of several names have id {row['image']!s:.60}"]
    if row["category"] != category.id:
        return ["other_category", f"category {row['category']!s:.60} is not {category.id:.60}"]
    if row["crowd"]:
        return ["crowd", "it is a crowd"]
    return None


def _assignment(option: str, text: str) -> tuple[str, str]:
    split, _, name = text.partition("=")
    if split not in _SPLITS or not name:
        raise ValueError(
            f"{option} must be SPLIT=NAME with one of {', '.join(_SPLITS)} as SPLIT, got {text!r}"
        )
    return split, name


def _folders(
    source: Source, images: list[str] | None, splits: set[str]
) -> tuple[str, dict[str, str]]:
    """Return the folder of all images, and below it those of the splits."""
    if not images:
        return "images" if source.has("images") else "", {}
    if len(images) == 1 and images[0].partition("=")[0] not in _SPLITS:
        return _below_source(images[0]), {}
    named = [_assignment("--images", text) for text in images]
    if len(named) != len(splits) or {split for split, _ in named} != splits:
        raise ValueError(
            f"--images must be one folder, or SPLIT=FOLDER once for each of {', '.join(sorted(splits))}"
        )
    return "", {split: _below_source(folder) for split, folder in named}


def _below_source(folder: str) -> str:
    normal = posixpath.normpath(folder)
    if normal.startswith(("/", "..")):
        raise ValueError(f"--images must be a folder below the source, got {folder!r}")
    return "" if normal == "." else normal


def _landmark_set(source: Source, option: str | None) -> LandmarkSet:
    """Return the set of that name, or of that file, or else of the source's own file."""
    if option in LANDMARK_SETS:
        return LANDMARK_SETS[option]
    path = option or source.path(_LANDMARKS)
    if not exists(path):
        raise ValueError(
            f"there is no landmark set {path}: describe your landmarks in such a file, or give "
            f"--landmarks one of {', '.join(LANDMARK_SETS)}. {_HELP}"
        )
    if is_local(path):
        return load(path)
    with open_file(path) as file:
        try:
            values = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON that can be read: {error}") from None
    return parse(values, path)
