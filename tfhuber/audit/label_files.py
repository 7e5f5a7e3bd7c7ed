"""What is in doubt in files that labelling tools open: COCO's keypoints, and DeepLabCut's CSV."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfhuber.audit.run_audit import Suspect
from tfhuber.console.files import Aside
from tfhuber.data import records
from tfhuber.data.split import Split, stored_examples
from tfhuber.evaluation.predictions import Predictions
from tfhuber.landmarks.landmark_set import LandmarkSet

__all__ = ["write_coco", "write_dlc"]

# Where a DeepLabCut project has its frames, whose names begin below it.
_FRAMES = "labeled-data"


def write_coco(
    path: Path, found: Sequence[Suspect], predictions: Predictions, split: Split
) -> None:
    """Write the annotations in doubt, the most suspicious first, with their labels as they are.

    An annotation also has `score`, by how many nats it is likelier wrong, and `doubt`, the kinds of it and
    the landmarks.

    Args:
      path: of the JSON file; its directory is there.
      found: as `run_audit.suspects` returns them.
      predictions: of the split.
      split: whose examples.

    Raises:
      OSError: it cannot be written.
    """
    landmark_set = split.landmark_set
    doubts = _by_example(found, landmark_set.names)
    boxes, sizes = _boxes_and_sizes(split, doubts)
    images: dict[str, dict[str, Any]] = {}
    annotations = []
    for number, (i, (score, doubt)) in enumerate(doubts.items(), 1):
        name = _image(predictions, i)
        width, height = sizes[i]
        image = {"id": len(images) + 1, "file_name": name, "width": width, "height": height}
        image = images.setdefault(name, image)
        labelled = predictions.weights[i] > 0
        points = np.where(labelled[:, None], predictions.truth[i].astype(np.float64), 0)
        x, y, right, below = boxes[i]
        keypoints = np.column_stack([np.round(points, 2), 2 * labelled]).ravel().tolist()
        annotation = {
            "id": number,
            "image_id": image["id"],
            "category_id": 1,
            "keypoints": keypoints,
            "num_keypoints": int(labelled.sum()),
            "bbox": [x, y, right - x, below - y],
            "area": (right - x) * (below - y),
            "iscrowd": 0,
            "score": round(score, 2),
            "doubt": doubt,
        }
        annotations.append(annotation)
    document = {
        "images": list(images.values()),
        "annotations": annotations,
        "categories": [_category(landmark_set)],
    }
    with Aside(path) as aside:
        json.dump(document, aside.open())


def write_dlc(path: Path, found: Sequence[Suspect], predictions: Predictions, split: Split) -> bool:
    """Write the frames in doubt as DeepLabCut's CSV of labels, whose scorer is `audit`.

    Args:
      path: of the CSV file; its directory is there.
      found: as `run_audit.suspects` returns them.
      predictions: of the split.
      split: whose examples.

    Returns:
      Whether the data set is of a DeepLabCut project, and no frame in doubt has two animals, as this layout
      has no place for a second; nothing is written otherwise.

    Raises:
      OSError: it cannot be written.
    """
    names = split.landmark_set.names
    images = {i: _image(predictions, i) for i in _by_example(found, names)}
    parameters = records.read_manifest(split.directory).get("parameters", {})
    if parameters.get("dataset") != "dlc" or len(set(images.values())) < len(images):
        return False
    with Aside(path) as aside:
        table = csv.writer(aside.open(newline=""))
        table.writerow(["scorer", *["audit"] * (2 * len(names))])
        table.writerow(["bodyparts", *(name for name in names for _ in "xy")])
        table.writerow(["coords", *["x", "y"] * len(names)])
        for i, image in images.items():
            labelled = predictions.weights[i] > 0
            cells = [
                f"{value:.3f}" if seen else ""
                for point, seen in zip(predictions.truth[i], labelled, strict=True)
                for value in point
            ]
            table.writerow([f"{_FRAMES}/{image}", *cells])
    return True


def _by_example(
    found: Sequence[Suspect], names: Sequence[str]
) -> dict[int, tuple[float, list[str]]]:
    """Return by example's index the largest score, and what is in doubt, in the order of suspicion."""
    doubts: dict[int, tuple[float, list[str]]] = {}
    for suspect in found:
        _, said = doubts.setdefault(suspect.index, (suspect.score, []))
        said.append(suspect.kind if suspect.landmark is None else names[suspect.landmark])
    return doubts


def _image(predictions: Predictions, index: int) -> str:
    name = predictions.id[index].decode(errors="replace")
    return name.rpartition("#")[0] or name


def _boxes_and_sizes(
    split: Split, wanted: dict[int, Any]
) -> tuple[dict[int, list[float]], dict[int, list[int]]]:
    boxes, sizes = {}, {}
    for i, example in enumerate(stored_examples(split)):
        if i in wanted:
            boxes[i] = [round(float(side), 2) for side in example["box"].numpy()]
            sizes[i] = example["image_size"].numpy().tolist()
    return boxes, sizes


def _category(landmark_set: LandmarkSet) -> dict[str, Any]:
    return {
        "id": 1,
        "name": landmark_set.name,
        "keypoints": list(landmark_set.names),
        "skeleton": [[a + 1, b + 1] for a, b in landmark_set.edges],
    }
