"""The reader of COCO keypoints JSON: anyone's own landmarks, beside a description of them.

`docs/bring_your_own_data.md` says how such a data set is laid out and which of its fields are read.
"""

import json
import posixpath
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pipelines.errors import Unusable
from pipelines.readers.annotation import (
    LARGEST_COORDINATE,
    Entry,
    Labels,
    box_around,
    check_box,
)
from pipelines.readers.base import AnnotationFiles
from pipelines.readers.coco_categories import Category, choose
from pipelines.readers.coco_database import CocoDatabase, opened
from pipelines.readers.option_values import SPLITS, assignment, named_landmark_set
from pipelines.storage import Source, SourceFiles
from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = ["Coco"]

_LANDMARKS = "landmarks.json"
_HELP = "docs/bring_your_own_data.md says how to lay out a data set of your own"


@dataclass(frozen=True)
class Coco(AnnotationFiles):
    """The reader (`pipelines.readers.base.Reader`) of keypoints in COCO's JSON.

    Keypoints become landmarks by their names, or by their order if the file does not name them. Those
    of a visibility above 0 are labelled. Coordinates are of the picture whose size the file says.

    Attributes:
      landmark_set: what is wanted of the keypoints.
      annotations: (split, file) pairs; files are below the source's directory.
      images: the folder of the images below the source's directory; "" for the directory itself.
      categories: the names of the annotations' categories; none for all with the same keypoints.
      folders: (split, folder below `images`) pairs, if each split's images have a folder.
      apply_exif: whether labels are of the photographs as EXIF's orientation turns them.
      remarks: lines to tell the user.

    Example:
      >>> Coco.from_options(Source("coco"), "coco", ["test=test_coco.json"]).lists
      ('test_coco.json',)
    """

    landmark_set: LandmarkSet
    annotations: tuple[tuple[str, str], ...]
    images: str = "images"
    categories: tuple[str, ...] = ()
    folders: tuple[tuple[str, str], ...] = ()
    apply_exif: bool = False
    remarks: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def from_options(
        cls,
        source: Source,
        landmarks: str | LandmarkSet | None = None,
        annotations: list[str] | None = None,
        images: list[str] | None = None,
        category: list[str] | None = None,
        apply_exif: bool = False,
    ) -> "Coco":
        """Return the reader that a command line describes.

        Args:
          source: the data set.
          landmarks: a set, a known one's name or a JSON file; None for `landmarks.json` in the source.
          annotations: `SPLIT=FILE`s; None for those of `annotations/SPLIT.json` that there are.
          images: a folder, or a `SPLIT=FOLDER` for each split; None for `images` if there is one, or
            else the source itself.
          category: the attribute `categories`; None for none.
          apply_exif: as the attribute.

        Raises:
          ValueError: in one line that says what is missing or wrong.
        """
        if annotations:
            files = [assignment("--annotations", text) for text in annotations]
        else:
            usual = [(split, f"annotations/{split}.json") for split in SPLITS]
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
        landmark_set = (
            landmarks
            if isinstance(landmarks, LandmarkSet)
            else named_landmark_set(landmarks or source.path(_LANDMARKS), _HELP)
        )
        if landmark_set.normalizer == "reader":
            raise ValueError(
                f"the normalizer of {landmark_set.name!r} is not known from COCO's files: nothing could "
                'be scored; let it be "box" or a distance'
            )
        categories, by_split = tuple(category or ()), tuple(folders.items())
        return cls(landmark_set, tuple(files), folder, categories, by_split, apply_exif)

    def photograph(self, image: str) -> str:
        """Return the image itself."""
        return image

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield every annotation, in the order of the images, so that an image's are together.

        Each file is read once, into a database in the directory for temporary files, which takes
        about the room that the keypoints take in the files; memory does not grow with either. An
        entry's id is `image#id`, with the annotation's id as JSON has it, or else its position.

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
                chosen = choose(known, self.categories, self.landmark_set, path)
                database.match_ids(file, [category["id"] for category in known])
                categories.append(chosen)
            for file, chosen in enumerate(categories):
                database.count_people(file, chosen)
            for row in database.rows():
                yield self._entry(row, categories[row["file"]], database)

    def labels(self, entry: Entry, source: SourceFiles) -> Labels:
        """Return the labels of an entry; raise `Unusable` with the reason if they cannot be used."""
        values = entry.labels
        if "fault" in values:
            raise Unusable(*values["fault"])
        keypoints = np.array(values["keypoints"], np.float64)
        points, visibility = keypoints[:, :2], keypoints[:, 2]
        # What is no number is NaN, of which any comparison is false.
        labelled = (visibility > 0) & np.all(np.abs(points) <= LARGEST_COORDINATE, axis=1)
        notes = ["position_as_id"] if values["no_id"] else []
        if np.any(~labelled & ~(visibility <= 0)):
            notes.append("lost_points")
        if not labelled.any():
            raise Unusable("unlabelled", "no landmark is labelled")
        box = _box(values["box"])
        if box is None:
            box = box_around(points[labelled])
            notes.append("box_from_points")
        points, weights = np.where(labelled[:, None], points, 0.0), labelled.astype(np.float64)
        return Labels(
            points,
            weights,
            box,
            self.landmark_set.normalizer_length(points, weights, box),
            tuple(values["attributes"]),
            values["people"],
            tuple(values["size"]) if values["size"] else None,
            "upright" if self.apply_exif else "unknown",
            tuple(notes),
        )

    def _entry(
        self, row: sqlite3.Row, categories: dict[str, Category], database: CocoDatabase
    ) -> Entry:
        split, name = self.annotations[row["file"]]
        image = json.loads(row["name"] or '""')
        position = f"annotations[{row['position']}]"
        id = f"{image}#{row['id'] or position}"
        fault = _fault(row, categories)
        if not fault and not database.is_new("all files", id):
            fault = ["duplicate_id", "the same annotation of this image is in an earlier file"]
        labels = {"fault": fault} if fault else categories[row["category"]].labels(row)
        return Entry(id, split, image, name, position, labels | {"no_id": row["id"] is None})


def _box(values: list[float] | None) -> np.ndarray | None:
    """Return the box x0, y0, x1, y1 of a `bbox`; None if it is none that can be used."""
    if values is None:
        return None
    x, y, width, height = values
    box = np.array([x, y, x + width, y + height])
    try:
        check_box(box)
    except Unusable:
        return None
    return box


def _fault(row: sqlite3.Row, categories: dict[str, Category]) -> list[str] | None:
    """Return why an annotation is not wanted, whatever its labels; None if it is."""
    if row["labels"] is None:
        return ["malformed_annotation", "it is no object"]
    if row["repeated"]:
        return ["duplicate_id", "an annotation before it is the same, with the same id"]
    if row["name"] is None:
        return ["no_image_entry", f"no image with a file_name has id {row['image']!s:.60}"]
    if row["ambiguous"]:
        return ["duplicate_image", f"images of several names have id {row['image']!s:.60}"]
    if row["category"] not in categories:
        wanted = " or ".join(categories)
        return ["other_category", f"category {row['category']!s:.60} is not {wanted:.60}"]
    if row["crowd"]:
        return ["crowd", "it is a crowd"]
    return None


def _folders(
    source: Source, images: list[str] | None, splits: set[str]
) -> tuple[str, dict[str, str]]:
    """Return the folder of all images, and below it those of the splits."""
    if not images:
        return "images" if source.has("images") else "", {}
    if len(images) == 1 and images[0].partition("=")[0] not in SPLITS:
        return _below_source(images[0]), {}
    named = [assignment("--images", text) for text in images]
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
