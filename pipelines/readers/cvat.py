"""The reader of CVAT's export "COCO Keypoints 1.0", whose skeleton becomes the landmark set."""

import posixpath
import re
from dataclasses import replace

from pipelines.readers.coco import Coco
from pipelines.readers.json_stream import members
from pipelines.readers.option_values import assignment, named_landmark_set
from pipelines.readers.skeleton import Skeleton, landmark_set_of
from pipelines.storage import Source

__all__ = ["read_cvat"]

_FOLDER = "annotations"
_FILE = re.compile(r"person_keypoints_(?P<subset>.+)\.json")
# CVAT's subsets, of which `default` is that of tasks without one.
_SPLITS = {"default": "train", "train": "train", "test": "test"} | dict.fromkeys(
    ("val", "valid", "validation"), "valid"
)


def read_cvat(
    source: Source,
    landmarks: str | None = None,
    annotations: list[str] | None = None,
    category: list[str] | None = None,
    apply_exif: bool = False,
) -> Coco:
    """Return the reader of a folder with CVAT's `annotations/person_keypoints_SUBSET.json` and `images/`.

    Args:
      source: the unpacked export.
      landmarks: a known set's name or a JSON file; None for the skeleton of the file's category.
      annotations: `SPLIT=FILE`s; None for those of all subsets.
      category, apply_exif: as for `Coco`.

    Raises:
      ValueError: in one line that says what is missing or wrong.
    """
    files = [assignment("--annotations", text) for text in annotations or ()] or _usual_files(
        source
    )
    images = []
    for split, name in files:
        found = _FILE.fullmatch(posixpath.basename(name))
        folder = f"images/{found['subset']}" if found else "images"
        images.append(f"{split}={folder if source.has(folder) else 'images'}")
    remarks: tuple[str, ...] = ()
    if landmarks:
        chosen = named_landmark_set(landmarks)
    else:
        chosen, remarks = landmark_set_of(_skeleton(source, files[0][1], category), source.root)
    names = [f"{split}={name}" for split, name in files]
    reader = Coco.from_options(source, chosen, names, images, category, apply_exif)
    return replace(reader, remarks=remarks)


def _usual_files(source: Source) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name in sorted(source.names(_FOLDER)):
        if subset := _FILE.fullmatch(name):
            split = _SPLITS.get(subset["subset"].lower())
            if split is None or split in (each for each, _ in found):
                raise ValueError(
                    f"{source.root} has the subset {subset['subset']!r}; say what its split is with "
                    f"--annotations SPLIT={_FOLDER}/{name}"
                )
            found.append((split, f"{_FOLDER}/{name}"))
    if not found:
        raise ValueError(
            f"{source.root} has no {_FOLDER}/person_keypoints_SUBSET.json; export the task or project from "
            'CVAT as "COCO Keypoints 1.0", with its images, and unpack it'
        )
    return found


def _skeleton(source: Source, name: str, category: list[str] | None) -> Skeleton:
    """Return the skeleton of the category that is wanted, or of the first one that has keypoints."""
    path = source.path(name)
    with source.open(name) as file:
        for key, number, value in members(file, path, "COCO keypoints"):
            if key != "categories" or number is None or not isinstance(value, dict):
                continue
            parts, wanted = value.get("keypoints"), not category or value.get("name") in category
            if not wanted or not isinstance(parts, list) or not parts:
                continue
            parts = [str(part) for part in parts]
            return Skeleton(str(value.get("name", "")), tuple(parts), _edges(value, parts))
    wanted_names = " or ".join(category or ["any name"])
    raise ValueError(f"{path} has no category of {wanted_names} with keypoints")


def _edges(category: dict, parts: list[str]) -> tuple[tuple[str, str], ...]:
    """Return the edges, which COCO numbers from 1."""
    edges = category.get("skeleton")
    places = range(1, len(parts) + 1)
    return tuple(
        (parts[edge[0] - 1], parts[edge[1] - 1])
        for edge in (edges if isinstance(edges, list) else ())
        if isinstance(edge, list) and len(edge) == 2 and edge[0] in places and edge[1] in places
    )
