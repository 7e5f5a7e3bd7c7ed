"""The protocol of a format's reader: `wflw`, `mpii`, `lp300w`, `coco` and `poses` have one each."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from pipelines.readers.annotation import Entry, Labels
from pipelines.storage import Source, SourceFiles
from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = ["AnnotationFiles", "MakesPictures", "Reader"]


class Reader(Protocol):
    """A format. The launcher streams its entries; the workers get the reader and make the labels.

    Attributes:
      landmark_set: what the landmarks are.
      images: the folder, below the source's directory, that no image's path may leave.
      lists: the files that `entries` reads, below the source's directory.
      validation_fraction: part of the training photographs to hold out unless told otherwise.
    """

    @property
    def landmark_set(self) -> LandmarkSet: ...
    @property
    def images(self) -> str: ...
    @property
    def lists(self) -> tuple[str, ...]: ...
    @property
    def validation_fraction(self) -> float: ...

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield the source's entries, in its order, without holding them all.

        Raises:
          ValueError: if the directory does not have the format's layout, or a list is no list.
        """

    def labels(self, entry: Entry, source: SourceFiles) -> Labels:
        """Return the labels of an entry, whose split may have been renamed.

        Raises:
          Unusable: if they cannot be used.
        """

    def photograph(self, image: str) -> str:
        """Return the photograph that an image was made from, which no two splits may share."""


class AnnotationFiles:
    """What readers have in common whose splits have files of annotations.

    Attributes:
      annotations: (split, file) pairs; files are below the source's directory.
    """

    annotations: tuple[tuple[str, str], ...]

    @property
    def lists(self) -> tuple[str, ...]:
        """Names of the files, each once."""
        return tuple(dict.fromkeys(file for _, file in self.annotations))

    @property
    def validation_fraction(self) -> float:
        """A tenth where there is nothing but a training split, else none."""
        return 0.1 if {split for split, _ in self.annotations} == {"train"} else 0.0


@runtime_checkable
class MakesPictures(Protocol):
    """A reader some of whose images have no file of their own, as frames in a video."""

    def makes(self, image: str) -> bool:
        """Return whether an image has no file of its own."""

    def picture(self, image: str, source: SourceFiles) -> bytes:
        """Return the file that such an image would have; raise `Unusable` if it cannot be had."""
