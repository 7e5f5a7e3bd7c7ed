"""The reader of Lightning Pose's layout: CSV files with three header rows beside their frames."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.readers.pose_csv import read_pose_table
from pipelines.readers.poses import Animal, Frame, PoseReader
from pipelines.readers.skeleton import Skeleton
from pipelines.storage import Source

__all__ = ["LightningPose"]

# Of a file's name: what all have in common, and what marks labels of other videos, to test with.
_COMMON = re.compile(r"^CollectedData_?", re.IGNORECASE)
_NEW = re.compile(r"_new$", re.IGNORECASE)


@dataclass(frozen=True)
class LightningPose(PoseReader):
    """The reader of Lightning Pose's CSV files, whose paths begin in their folder.

    A folder of frames is a video, if there is more than one. Several files are several views, each of
    which has frames of its own: `session_top/img1.png` in `top.csv` and `session_bot/img1.png` in
    `bot.csv` are one moment of one video, which no two splits share. `CollectedData_new.csv` becomes the
    split `test`.
    """

    @classmethod
    def usual_files(cls, source: Source) -> tuple[tuple[str, str], ...]:
        """Return the CSV files of labels in the source's folder."""
        names = sorted(name for name in source.names("") if name.lower().endswith(".csv"))
        labels = [name for name in names if _COMMON.match(name)] or names
        if not labels:
            raise ValueError(
                f"{source.root} has no CSV file with labels; give the folder that holds CollectedData.csv, "
                "or name the files with --annotations SPLIT=FILE"
            )
        return tuple(("test" if _NEW.search(_stem(name)) else "train", name) for name in labels)

    @classmethod
    def skeleton(cls, source: Source, annotations: tuple[tuple[str, str], ...]) -> Skeleton:
        """Return the parts of all files; Lightning Pose has no edges."""
        tables = [read_pose_table(source, name) for _, name in annotations]
        if any(table.individuals != ("",) for table in tables):
            raise ValueError(
                f"{source.root} has labels of several individuals, which Lightning Pose does not know; a "
                "DeepLabCut project is --dataset dlc"
            )
        parts = dict.fromkeys(part for table in tables for part in table.parts(""))
        return Skeleton(posixpath.basename(source.root), tuple(parts))

    @property
    def views(self) -> tuple[str, ...]:
        """What tells several files apart: `top` of `CollectedData_top.csv`."""
        stems = (_NEW.sub("", _COMMON.sub("", _stem(name))) for name in self.lists)
        return tuple(dict.fromkeys(stem for stem in stems if stem)) if len(self.lists) > 1 else ()

    def frames(self, source: Source) -> Iterator[Frame]:
        """Yield as in `PoseReader`."""
        for split, name in self.annotations:
            for line, path, individuals in read_pose_table(source, name).frames():
                image = posixpath.join(posixpath.dirname(name), path)
                animals = [Animal("", points) for points in individuals.values() if points]
                yield Frame(image, name, f"line {line}", animals, split)

    def moment(self, image: str) -> str:
        """Return the image's name without that of its view."""
        for view in self.views:
            image = re.sub(rf"[-_.]?(?<![A-Za-z0-9]){re.escape(view)}(?![A-Za-z0-9])", "", image)
        return image

    def video(self, image: str) -> str:
        """Return the folder of the frame, without the view's name."""
        return posixpath.dirname(self.moment(image))


def _stem(name: str) -> str:
    return posixpath.basename(name).rpartition(".")[0]
