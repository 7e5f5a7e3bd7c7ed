"""COCO keypoints of clocks, sound or with other fields, for the tests."""

import json
import pickle

from reader_outcomes import read_all

from pipelines.readers.coco import Coco
from pipelines.storage import Source

CLOCK = {
    "name": "clock",
    "landmarks": ["pivot", "hour", "minute"],
    "normalizer": {"distance": ["pivot", "minute"]},
    "attributes": ["broken", "night"],
}
POINTS = [50, 60, 2, 50, 40, 1, 70.5, 60, 2]


def category(**changes):
    return {"id": 1, "name": "clock", "keypoints": ["pivot", "hour", "minute"], **changes}


def photo(id=1, name="a.jpg", **changes):
    return {"id": id, "file_name": name, "width": 200, "height": 180, **changes}


def clock(id=1, **changes):
    """An annotation; a field set to `...` is left out."""
    fields = {"id": id, "image_id": 1, "category_id": 1, "keypoints": POINTS}
    fields |= {"bbox": [40, 30, 40, 50], "iscrowd": 0, "segmentation": [[0.5] * 99]} | changes
    return {name: value for name, value in fields.items() if value is not ...}


def document(*annotations, images=None, categories=None):
    images = [photo(), photo(2, "b.jpg")] if images is None else images
    categories = [category()] if categories is None else categories
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def write(directory, description=CLOCK, **splits):
    """A data set in the layout of the documentation; a split is a document or its bytes."""
    for folder in ("images", "annotations"):
        (directory / folder).mkdir(parents=True)
    (directory / "landmarks.json").write_text(json.dumps(description))
    for split, content in splits.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (directory / f"annotations/{split}.json").write_bytes(data)
    return directory


def reader(directory, *arguments, **options):
    """The reader as workers get it."""
    made = Coco.from_options(Source(str(directory)), *arguments, **options)
    return pickle.loads(pickle.dumps(made))


def read(directory, *arguments, **options):
    return read_all(reader(directory, *arguments, **options), directory)


def outcomes(items):
    return [getattr(item, "reason", "good") for item in items]
