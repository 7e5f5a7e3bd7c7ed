"""The reader of SLEAP's projects, `.slp` with videos beside it and `.pkg.slp` with frames inside."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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
from pipelines.storage import Source, SourceFiles, is_local
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    import sleap_io
else:  # from the extra `formats`
    sleap_io = lazy_module("sleap_io")

__all__ = ["Sleap"]


@dataclass(frozen=True)
class Sleap(PoseReader):
    """The reader of SLEAP's labels: instances that somebody has labelled; predictions are left out.

    Videos and pictures are looked for below the source by the end of their path. A skeleton's symmetries
    are its mirror pairs. Coordinates are taken as they are.
    """

    @classmethod
    def usual_files(cls, source: Source) -> tuple[tuple[str, str], ...]:
        """Return the one project in the source's folder."""
        names = sorted(name for name in source.names("") if name.lower().endswith(".slp"))
        packed = [name for name in names if name.lower().endswith(".pkg.slp")]
        chosen = packed if len(packed) == 1 else names
        if len(chosen) != 1:
            found = f"several .slp files, {', '.join(names)[:200]}" if names else "no .slp file"
            raise ValueError(
                f"{source.root} has {found}; name those to read with --annotations SPLIT=FILE"
            )
        return (("train", chosen[0]),)

    @classmethod
    def skeleton(cls, source: Source, annotations: tuple[tuple[str, str], ...]) -> Skeleton:
        """Return the skeleton that all projects have."""
        found = [each for _, name in annotations for each in _load(source, name).skeletons]
        names = {tuple(each.node_names) for each in found}
        if len(names) != 1:
            shown = "; ".join(", ".join(each) for each in sorted(names))
            raise ValueError(
                f"{source.root} must have one skeleton, not {len(names)}: {shown:.300}"
            )
        first = found[0]
        return Skeleton(
            first.name or posixpath.basename(source.root),
            tuple(first.node_names),
            tuple((a, b) for a, b in first.edge_names),
            tuple((a, b) for a, b in first.symmetry_names) or None,
        )

    def frames(self, source: Source) -> Iterator[Frame]:
        """Yield as in `PoseReader`; frames with nothing but predictions are not labelled."""
        for split, name in self.annotations:
            labels = _load(source, name)
            videos = labels.videos
            files = [_files(video, index, name, source) for index, video in enumerate(videos)]
            for number, frame in enumerate(labels.labeled_frames, start=1):
                if not frame.user_instances:
                    continue
                image = _image(files[videos.index(frame.video)], int(frame.frame_idx))
                several = len(frame.user_instances) > 1
                animals = [
                    Animal(str(index) if several else "", _points(instance))
                    for index, instance in enumerate(frame.user_instances)
                ]
                animals = [animal for animal in animals if animal.points]
                yield Frame(image, name, f"labeled_frames[{number}]", animals, split)

    def video(self, image: str) -> str:
        """Return the file of the frame's video, or its folder."""
        return file_of(image) if is_frame(image) else posixpath.dirname(image)

    def makes(self, image: str) -> bool:
        """Return whether an image is a frame of a video."""
        return is_frame(image)

    def picture(self, image: str, source: SourceFiles) -> bytes:
        """Return the PNG file of a frame."""
        return frame_bytes(image, source)


def _load(source: Source, name: str) -> Any:
    check_sleap_io("--dataset sleap")
    path = source.path(name)
    if not is_local(path):
        raise ValueError(f"{path} must be a file of this machine: sleap-io reads it")
    try:
        return sleap_io.load_slp(path, open_videos=False)
    except Exception as error:  # sleap-io checks little of what a file holds
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is no SLEAP project that can be read: {text:.300}") from None


def _files(video: Any, number: int, name: str, source: Source) -> tuple[str, int] | str | list[str]:
    """Return a video inside the project as that and its number, or its file, or those of its frames."""
    if video.filename == source.path(name):
        return name, number
    if isinstance(video.filename, str):
        return tail_in(video.filename, source.has)
    return [tail_in(file, source.has) for file in video.filename]


def _image(files: tuple[str, int] | str | list[str], frame: int) -> str:
    if isinstance(files, tuple):
        return frame_name(files[0], frame, files[1])
    if isinstance(files, str):
        return frame_name(files, frame)
    return files[frame] if 0 <= frame < len(files) else ""


def _points(instance: Any) -> dict[str, tuple[float, float]]:
    """Return the points that are set and visible."""
    places = np.asarray(instance.numpy(), np.float64)
    names = instance.skeleton.node_names
    return {
        name: (float(x), float(y))
        for name, (x, y) in zip(names, places, strict=True)
        if not (np.isnan(x) and np.isnan(y))
    }
