"""The reader of Label Studio's JSON export: keypoints, and rectangles that say which animal's they are."""

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pipelines.readers.poses import Animal, Frame, PoseReader
from pipelines.readers.skeleton import Skeleton
from pipelines.readers.video_frames import (
    check_sleap_io,
    file_of,
    frame_bytes,
    frame_name,
    is_frame,
    tail_in,
)
from pipelines.storage import Source, SourceFiles

__all__ = ["LabelStudio"]

_LARGEST_FILE = 1 << 29
_PICTURE = re.compile(r"\.(jpe?g|png|bmp|tiff?|webp)$", re.IGNORECASE)
# What Label Studio puts before the name of a file that is uploaded.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
# Percent beyond which a rectangle is none of the picture's.
_BEYOND = 101.0


@dataclass(frozen=True)
class LabelStudio(PoseReader):
    """The reader of Label Studio's export "JSON", one task a picture, of which the first annotation counts.

    A keypoint is the animal's whose rectangle it is related to, or lies in, or the only one there is.
    Percent of a picture become pixels whose centres are at integers, so that 0 % is -0.5. Tasks that
    sleap-io has written name a frame of a video, and their 0 % is the first pixel's centre.
    """

    @classmethod
    def usual_files(cls, source: Source) -> tuple[tuple[str, str], ...]:
        """Return the JSON files in the source's folder."""
        names = sorted(name for name in source.names("") if name.lower().endswith(".json"))
        if not names:
            raise ValueError(
                f"{source.root} has no .json file; give the folder that holds Label Studio's export JSON, "
                "or name the files with --annotations SPLIT=FILE"
            )
        return tuple(("train", name) for name in names)

    @classmethod
    def skeleton(cls, source: Source, annotations: tuple[tuple[str, str], ...]) -> Skeleton:
        """Return the keypoints' labels in the order of their names; Label Studio has no edges."""
        parts = {
            part
            for _, name in annotations
            for task in _tasks(source, name)
            for item in _result(task)
            if (part := _part(item)) is not None
        }
        if not parts:
            raise ValueError(
                f"{source.root} has no keypoints; export them from Label Studio as JSON, not as JSON-MIN"
            )
        return Skeleton(posixpath.basename(source.root), tuple(sorted(parts)))

    def frames(self, source: Source) -> Iterator[Frame]:
        """Yield as in `PoseReader`."""
        for split, name in self.annotations:
            for number, task in enumerate(_tasks(source, name), start=1):
                image, position = _image(task, source), f"[{number}]"
                try:
                    animals, size = _animals(_result(task), 0.0 if is_frame(image) else 0.5)
                    yield Frame(image, name, position, animals, split, size)
                except ValueError as error:
                    fault = ("malformed_annotation", str(error))
                    yield Frame(image, name, position, (), split, fault=fault)

    def video(self, image: str) -> str:
        """Return the file of the frame's video, or its folder."""
        return file_of(image) if is_frame(image) else posixpath.dirname(image)

    def makes(self, image: str) -> bool:
        """Return whether an image is a frame of a video."""
        return is_frame(image)

    def picture(self, image: str, source: SourceFiles) -> bytes:
        """Return the PNG file of a frame."""
        check_sleap_io("a frame of a video")
        return frame_bytes(image, source)


def _tasks(source: Source, name: str) -> list[dict]:
    path = source.path(name)
    with source.open(name) as file:
        data = file.read(_LARGEST_FILE + 1)
    try:
        if len(data) > _LARGEST_FILE:
            raise ValueError(f"it has more than {_LARGEST_FILE:,} bytes")
        tasks = json.loads(data.decode("utf-8-sig"))
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise ValueError("it is no list of tasks")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no export JSON of Label Studio: {error}") from None
    return tasks


def _result(task: dict) -> list[dict]:
    """Return what the first annotation holds that was not cancelled."""
    annotations = task.get("annotations", task.get("completions"))
    for annotation in annotations if isinstance(annotations, list) else ():
        if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
            result = annotation.get("result")
            return (
                [item for item in result if isinstance(item, dict)]
                if isinstance(result, list)
                else []
            )
    return []


def _part(item: dict) -> str | None:
    value = item.get("value")
    labels = value.get("keypointlabels") if isinstance(value, dict) else None
    named = item.get("type") == "keypointlabels" and isinstance(labels, list) and len(labels) == 1
    return labels[0] if named and labels and isinstance(labels[0], str) else None


def _image(task: dict, source: Source) -> str:
    """Return the picture's path, or the frame's name; "" if there is none."""
    meta = task.get("meta")
    video = meta.get("video") if isinstance(meta, dict) else None
    if isinstance(video, dict) and isinstance(video.get("frame_idx"), int):
        file, frame = video.get("filename"), video["frame_idx"]
        if isinstance(file, list):
            return tail_in(str(file[frame]), source.has) if 0 <= frame < len(file) else ""
        return frame_name(tail_in(str(file), source.has), frame)
    data = task.get("data")
    for value in data.values() if isinstance(data, dict) else ():
        if isinstance(value, str):
            url = urlsplit(value)
            path = unquote(url.query.rpartition("d=")[2] or url.path)
            if _PICTURE.search(path):
                return _found(path, source)
    return ""


def _found(path: str, source: Source) -> str:
    tail = tail_in(path, source.has)
    if tail == path and not source.has(path):
        folder, _, name = path.rpartition("/")
        before = tail_in(f"{folder}/{_UPLOADED.sub('', name)}", source.has)
        return before if source.has(before) else path
    return tail


def _animals(result: list[dict], shift: float) -> tuple[list[Animal], tuple[int, int] | None]:
    """Return the animals of a picture, and its size.

    Args:
      result: of an annotation.
      shift: pixels from the picture's rim to where its coordinates are 0.

    Raises:
      ValueError: if a number is none, the picture was turned, or a name is there twice for an animal.
    """
    rectangles = {str(i.get("id")): i for i in result if i.get("type") == "rectanglelabels"}
    related = [
        {str(item.get("from_id")), str(item.get("to_id"))}
        for item in result
        if item.get("type") == "relation"
    ]
    found: dict[str, dict[str, tuple[float, float]]] = {key: {} for key in rectangles}
    size = None
    for item in result:
        if (part := _part(item)) is None:
            continue
        size, (x, y) = _size(item), _numbers(item, "x", "y")
        own = {str(item.get("id")), str(item.get("parentID"))}
        keys = {key for pair in related if pair & own for key in pair} | own
        owner = _owner(keys, rectangles, x, y)
        points = found.setdefault(owner, {})
        if part in points:
            raise ValueError(f"{part!r} is there twice, and no rectangle says of which animal")
        points[part] = (x / 100 * size[0] - shift, y / 100 * size[1] - shift)
    labelled = {key: points for key, points in found.items() if points}
    names = {key: str(index) if len(labelled) > 1 else "" for index, key in enumerate(labelled)}
    boxes = {key: _box(rectangles[key], shift) if key in rectangles else None for key in labelled}
    return [Animal(names[key], points, boxes[key]) for key, points in labelled.items()], size


def _owner(keys: set[str], rectangles: Mapping[str, dict], x: float, y: float) -> str:
    """Return the id of the rectangle that a point belongs to; "" for none."""
    named = keys & rectangles.keys()
    if len(named) == 1:
        return named.pop()
    around = []
    for key, item in rectangles.items():
        left, top, width, height = _numbers(item, "x", "y", "width", "height")
        if left <= x <= left + width and top <= y <= top + height:
            around.append(key)
    return around[0] if len(around) == 1 else ""


def _box(item: dict, shift: float) -> tuple[float, float, float, float] | None:
    """Return a rectangle's corners; None if it is turned, or larger than the picture."""
    x, y, width, height = _numbers(item, "x", "y", "width", "height")
    if item["value"].get("rotation") or max(x + width, y + height) > _BEYOND:
        return None
    right, bottom = _size(item)
    x0, x1 = (each / 100 * right - shift for each in (x, x + width))
    y0, y1 = (each / 100 * bottom - shift for each in (y, y + height))
    return x0, y0, x1, y1


def _numbers(item: dict, *names: str) -> list[float]:
    value = item.get("value")
    numbers = [value.get(name) for name in names] if isinstance(value, dict) else []
    if not numbers or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"{', '.join(names)} of {item.get('id')!s:.40} are no numbers")
    return [float(number) for number in numbers if number is not None]


def _size(item: dict) -> tuple[int, int]:
    if item.get("image_rotation"):
        raise ValueError(
            f"the picture was turned by {item['image_rotation']} degrees in Label Studio"
        )
    width, height = item.get("original_width"), item.get("original_height")
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        raise ValueError(f"original_width and original_height are {width!r} and {height!r}")
    return width, height
