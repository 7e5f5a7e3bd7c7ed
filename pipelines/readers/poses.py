"""What readers of pose projects share: frames of videos with named points, the box, and the splits."""

import abc
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

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
from pipelines.readers.option_values import assignment, named_landmark_set
from pipelines.readers.skeleton import Skeleton, known_landmark_set, landmark_set_of
from pipelines.storage import Source, SourceFiles
from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = ["Animal", "Frame", "PoseReader"]

_ONE_VIDEO = (
    "note: all frames are of one video, as far as is known, so that single frames are held out; errors on "
    "another video will be larger than on these"
)


@dataclass(frozen=True)
class Animal:
    """What is labelled of one animal in a frame; coordinates are the frame's pixels, centres at integers.

    Attributes:
      name: tells it from others in the frame; "" if there can be but one.
      points: (x, y) by name, of the points that somebody has set; NaN where they are no numbers.
      box: x0, y0, x1, y1, if the file has one.
    """

    name: str
    points: Mapping[str, tuple[float, float]]
    box: Sequence[float] | None = None


@dataclass(frozen=True)
class Frame:
    """A picture as the source lists it.

    Attributes:
      image: path below the reader's image folder, or what `PoseReader.picture` makes a picture of.
      source, position: as in `Entry`.
      animals: those in it, labelled or not.
      split: as in `Entry`.
      size: (width, height) of the picture that was labelled, if the file says so.
      fault: reason and detail if it cannot be used.
    """

    image: str
    source: str
    position: str
    animals: Sequence[Animal] = ()
    split: str = "train"
    size: tuple[int, int] | None = None
    fault: tuple[str, str] | None = None


@dataclass(frozen=True)
class PoseReader(AnnotationFiles, abc.ABC):
    """A reader (`pipelines.readers.base.Reader`) whose skeleton is the source's own.

    One entry for each animal of a frame that has a point, and one, which is a reject, for a frame that has
    none. Ids are `image`, and `image#animal` where an animal has a name.

    Attributes:
      landmark_set: the skeleton's, or the one that was asked for.
      annotations: (split, file) pairs; files are below the source's directory.
      by_video: whether all frames of a video stand in one split.
      whole_frame: whether the box is the whole frame, whatever the file has.
      remarks: lines to tell the user.
    """

    landmark_set: LandmarkSet
    annotations: tuple[tuple[str, str], ...]
    by_video: bool = False
    whole_frame: bool = False
    remarks: tuple[str, ...] = field(default=(), repr=False)
    images: str = ""

    @classmethod
    def from_options(
        cls,
        source: Source,
        landmarks: str | None = None,
        annotations: list[str] | None = None,
        box: str | None = None,
        split_by: str | None = None,
    ) -> Self:
        """Return the reader that a command line describes.

        Args:
          source: the data set.
          landmarks: a known set's name or a JSON file, with points by the skeleton's names; None for all
            of the skeleton.
          annotations: `SPLIT=FILE`s; None for the files that the format usually has.
          box: "frame" for the whole frame; None or "points" for the file's, or else the points'.
          split_by: "video" or "frame"; None for "video" where several videos are known.

        Raises:
          ValueError: in one line that says what is missing or wrong.
        """
        files = tuple(assignment("--annotations", text) for text in annotations or ())
        files = files or cls.usual_files(source)
        for _, name in files:
            if not source.has(name):
                raise ValueError(f"{name} is missing in {source.root}")
        skeleton = cls.skeleton(source, files)
        if landmarks is None:
            landmark_set, remarks = landmark_set_of(skeleton, source.root)
            if box == "frame":  # of one shape, so that stretching it does no harm
                landmark_set = replace(landmark_set, square="stretch")
        else:
            wanted = named_landmark_set(landmarks)
            landmark_set, remarks = known_landmark_set(wanted, skeleton.parts, source.root), ()
        reader = cls(landmark_set, files, whole_frame=box == "frame", remarks=remarks)
        return reader._split_by(split_by, source)

    @classmethod
    @abc.abstractmethod
    def usual_files(cls, source: Source) -> tuple[tuple[str, str], ...]:
        """Return the (split, file) pairs of a source; ValueError if it does not have the format."""

    @classmethod
    @abc.abstractmethod
    def skeleton(cls, source: Source, annotations: tuple[tuple[str, str], ...]) -> Skeleton:
        """Return what a source says of its points."""

    @abc.abstractmethod
    def frames(self, source: Source) -> Iterator[Frame]:
        """Yield the frames of a source, in its order."""

    def video(self, image: str) -> str:
        """Return which video a frame is of, as far as its name tells: its folder."""
        return posixpath.dirname(image)

    def moment(self, image: str) -> str:
        """Return what several views of one moment have in common: the image itself."""
        return image

    def photograph(self, image: str) -> str:
        """Return the frame's video, or the frame where frames are held out one by one."""
        return self.video(image) if self.by_video else self.moment(image)

    def entries(self, source: Source) -> Iterator[Entry]:
        """Yield as in `Reader`."""
        seen: set[str] = set()
        for frame in self.frames(source):
            animals = [a for a in frame.animals if self._has(a)]
            people = max(1, len(animals))
            for animal in animals or [Animal("", {})]:
                id = f"{frame.image}#{animal.name}" if animal.name else frame.image
                fault = frame.fault
                if fault is None and not animal.points:
                    fault = ("unlabelled", "no point is labelled")
                if fault is None and id in seen:
                    fault = ("duplicate_id", "the same frame is labelled earlier")
                seen.add(id)
                labels = {
                    "fault": fault,
                    "points": {name: list(xy) for name, xy in animal.points.items()},
                    "box": None if animal.box is None else list(animal.box),
                    "people": people,
                    "size": frame.size,
                }
                yield Entry(id, frame.split, frame.image, frame.source, frame.position, labels)

    def labels(self, entry: Entry, source: SourceFiles) -> Labels:
        """Return as in `Reader`; without a box if that is the whole frame."""
        values = entry.labels
        if values["fault"]:
            raise Unusable(*values["fault"])
        if self.whole_frame and values["people"] > 1:
            raise Unusable(
                "several_in_frame",
                f"{values['people']} animals have the whole frame as their box, which says of none that it "
                "is meant; without --box frame each has its own",
            )
        names = self.landmark_set.names
        points = np.array([values["points"].get(name, (0.0, 0.0)) for name in names], np.float64)
        given = np.array([name in values["points"] for name in names])
        # What is no number is NaN, of which any comparison is false.
        labelled = given & np.all(np.abs(points) <= LARGEST_COORDINATE, axis=1)
        if not labelled.any():
            raise Unusable("unlabelled", "no landmark has coordinates that are numbers")
        notes = ("lost_points",) if np.any(given & ~labelled) else ()
        points, weights = np.where(labelled[:, None], points, 0.0), labelled.astype(np.float64)
        box = None if self.whole_frame else _usable(values["box"])
        if box is None and not self.whole_frame:
            box = box_around(points[labelled])
            notes = ("box_from_points", *notes)
        length = self.landmark_set.normalizer_length
        return Labels(
            points,
            weights,
            box,
            0.0 if box is None else length(points, weights, box),
            people=values["people"],
            size=None if values["size"] is None else (values["size"][0], values["size"][1]),
            frame="unknown",
            notes=notes,
        )

    def _has(self, animal: Animal) -> bool:
        """Return whether one of an animal's points is a landmark."""
        return any(name in animal.points for name in self.landmark_set.names)

    def _split_by(self, wanted: str | None, source: Source) -> Self:
        """Return the reader that keeps videos whole, unless single frames are wanted or it has but one."""
        if wanted == "frame":
            return self
        videos = {self.video(frame.image) for frame in self.frames(source)}
        remark = f"splits: each of the {len(videos)} videos stands in one of them"
        by_video = len(videos) > 1
        return replace(
            self, by_video=by_video, remarks=(*self.remarks, remark if by_video else _ONE_VIDEO)
        )


def _usable(values: list[float] | None) -> np.ndarray | None:
    """Return the box x0, y0, x1, y1; None if it is none that can be used."""
    if values is None:
        return None
    box = np.array(values, np.float64)
    try:
        check_box(box)
    except Unusable:
        return None
    return box
