"""The pictures of a plan, read from files that are not trusted; what cannot be had is a reject."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from pipelines.errors import Unusable
from pipelines.predict.requests import Request
from pipelines.shards import stop_if_interrupted
from pipelines.storage import ReadSum, Source, is_local, open_file
from tfhuber.data import records
from tfhuber.data.tfrecord import read_records
from tfhuber.landmarks.json_lines import readable

__all__ = ["Picture", "PictureReader", "Reject"]

# Bytes of an image file; the model's largest picture, without compression, has 300 MB.
_LARGEST_IMAGE = 1 << 28


@dataclass(frozen=True)
class Picture:
    """What the model is asked, and how to call it.

    Attributes:
      source: its name.
      box: [4] in the original image's pixels; None for all of it.
      content: a JPEG or PNG file.
      to_original: [3, 3] map from the file's pixels to the original image's; None if these are the same.
    """

    source: str
    box: np.ndarray | None
    content: bytes
    to_original: np.ndarray | None = None

    @property
    def box_in_file(self) -> np.ndarray:
        """[4] float32 in the file's pixels; zeros for all of it."""
        if self.box is None:
            return np.zeros(4, np.float32)
        corners = self.box.reshape(2, 2).astype(np.float64)
        if self.to_original is not None:
            shift, scale = self.to_original[:2, 2], self.to_original[:2, :2]
            corners = (corners - shift) @ np.linalg.inv(scale).T
        return corners.ravel().astype(np.float32)


@dataclass(frozen=True)
class Reject:
    """A picture without a prediction, and why.

    Attributes:
      source: its name.
      box: as it was given; None for all of the picture.
      reason: a short code, the same for all pictures with this fault.
      error: the fault itself, for a human.
    """

    source: str
    box: list[float] | None
    reason: str
    error: str

    @classmethod
    def of(cls, picture: Picture | Request, unusable: Unusable) -> "Reject":
        """Return the reject that a picture becomes."""
        box = picture.box.tolist() if isinstance(picture.box, np.ndarray) else picture.box
        return cls(readable(picture.source), box, unusable.reason, readable(unusable.detail))


class PictureReader:
    """Reads pictures, and sums up all that was read, so that a change of the source is noticed."""

    def __init__(self) -> None:
        self._read = ReadSum()

    def read(self, requests: Iterable[Request]) -> Iterator[Picture | Reject]:
        """Yield the picture, or the reject, for each request in turn.

        Raises:
          OSError: an object store's, which the runner tries again; a file of records cannot be opened.
          InterruptedError: the job is to end.
        """
        for path, group in groupby(requests, key=attrgetter("path")):
            listed = list(group)
            if listed[0].record:
                yield from self._read_records(path, listed)
                continue
            for request in listed:
                stop_if_interrupted()
                yield self._read_file(request)

    def summary(self) -> dict:
        """Return what `ReadSum.summary` does."""
        return self._read.summary()

    def _read_file(self, request: Request) -> Picture | Reject:
        if request.fault:
            return Reject.of(request, Unusable("no_box", request.fault))
        # Names are the user's own, and a link in a folder may lead anywhere.
        root, name = "/", request.path
        if not is_local(request.path):
            root, name = FileSystems.split(request.path)
        try:
            content = Source(root).read(name, "image", _LARGEST_IMAGE)
        except Unusable as unusable:
            self._read.add_fault(unusable)
            return Reject.of(request, unusable)
        self._count(content)
        box = None if request.box is None else np.array(request.box)
        return Picture(request.source, box, content)

    def _read_records(self, path: str, requests: list[Request]) -> Iterator[Picture | Reject]:
        """Yield the pictures of records of one file, in order; after a damaged one there are none."""
        numbers = [request.record for request in requests]
        name, done = readable(os.path.basename(path)), 0
        with open_file(path) as file:
            try:
                for number, record in zip(numbers, read_records(file, set(numbers)), strict=False):
                    stop_if_interrupted()
                    self._count(record)
                    yield _record_picture(f"{name}#{number}", record)
                    done += 1
                fault = "there are fewer records in the file than its data set says"
            except ValueError as error:
                fault = str(error)
        for request in requests[done:]:
            unusable = Unusable("unreadable_record", fault)
            self._read.add_fault(unusable)
            yield Reject(f"{name}#{request.record}", None, unusable.reason, fault)

    def _count(self, content: bytes) -> None:
        self._read.add(content)
        Metrics.distribution("bytes", "image").update(len(content))


def _record_picture(name: str, record: bytes) -> Picture | Reject:
    try:
        example = records.decode(record)
        to_original = example["crop_to_original"].astype(np.float64).reshape(3, 3)
        box = example["box"].reshape(4)
        source = example["id"].decode(errors="backslashreplace")
        if not (np.isfinite(to_original).all() and np.linalg.det(to_original) > 0):
            raise ValueError("crop_to_original is no map that can be inverted")
    except ValueError as error:
        return Reject(name, None, "bad_record", str(error))
    return Picture(source, box, example["image"], to_original)
