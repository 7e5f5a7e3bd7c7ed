"""Find points of space: `python -m tfhuber.triangulate A.jsonl B.jsonl --calibration calibration.toml`.

Reads each camera's lines of JSON, as serving.client writes them, and writes the landmarks' points with
3 x 3 covariances, in the unit of the calibration. Cameras that contradict the others count less, by
themselves. A file is the camera's whose name it has, or that `NAME=FILE` says.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfhuber.cameras.calibration_files import read_cameras
from tfhuber.cameras.camera import Camera
from tfhuber.cameras.point_files import write_anipose, write_lines
from tfhuber.cameras.triangulation import Points, triangulate
from tfhuber.console.cli import progress, result_path, run_main, summary_stream
from tfhuber.landmarks.chosen import chosen
from tfhuber.tracking.film import Settings, frame_times, track_shots
from tfhuber.tracking.filtering import Measurements
from tfhuber.tracking.lines import Frame, LineReader
from tfhuber.tracking.smoothing import Track

__all__ = ["main"]

_TOGETHER = 20_000  # points that are found at a time


def main() -> int:
    """Run the command and return its exit status."""
    arguments = _parse()
    cameras = read_cameras(arguments.calibration)
    files = _files(arguments.lines, cameras)
    cameras = [camera for camera in cameras if camera.name in files]
    films = [_read(files[camera.name]) for camera in cameras]
    numbers, frames = _together(films)
    places, covariances = _arrays(films, numbers)
    names = _names(arguments.landmarks, places.shape[2])
    points = _points(cameras, places, covariances, arguments.delta)
    shape = len(numbers), len(names)
    known = np.isfinite(points.place).all(-1).reshape(shape)
    if not known.any():
        raise ValueError("no landmark is seen by two cameras in the same frame")
    track, rate = None, None
    if arguments.smooth:
        times, rate = frame_times(frames)
        track = _smoothed(points, times, shape, arguments.motion)
    used = [camera.name for camera in cameras]
    if arguments.jsonl:
        write_lines(arguments.jsonl, frames, points, used, track, rate)
    if arguments.anipose:
        write_anipose(arguments.anipose, numbers, points, names, track)
    paths = [path for path in (arguments.jsonl, arguments.anipose) if path]
    out = summary_stream(paths)
    print(
        f"{known.sum():,} of {known.size:,} points in {len(numbers)} frames from {len(cameras)} cameras; "
        f"median error {np.nanmedian(points.error):.2f} pixels",
        file=out,
    )
    for index, name in enumerate(used):
        seen = np.isfinite(places[index]).all(-1).reshape(-1) & known.reshape(-1)
        share = points.counts[seen, index].mean() if seen.any() else 0.0
        print(
            f"{name}: sees {100 * seen.mean():.0f} %, of which {100 * share:.0f} % counts", file=out
        )
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tfhuber.triangulate", description=__doc__)
    add = parser.add_argument
    add("lines", nargs="+", metavar="[NAME=]FILE", help="of each camera, by serving.client --jsonl")
    add(
        "--calibration",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="Anipose's calibration.toml, OpenCV's YAML (repeated, if there is one a camera), or a folder "
        "with COLMAP's text",
    )
    add("--jsonl", type=result_path, metavar="FILE", help="a line of JSON for each frame")
    add("--anipose", type=result_path, metavar="FILE", help="a CSV as Anipose writes of 3-D points")
    add("--smooth", action="store_true", help="in time too, each frame by all others")
    add("--motion", choices=("velocity", "acceleration"), default="velocity", help="with --smooth")
    add("--delta", type=float, default=1.0, help="knee of the energy (default: %(default)g)")
    add("--landmarks", metavar="NAME", help="the landmark set, or its JSON file, for names")
    arguments = parser.parse_args()
    if not (arguments.jsonl or arguments.anipose):
        raise ValueError("nothing to write: give --jsonl or --anipose")
    if not 0 < arguments.delta < float("inf"):
        raise ValueError(f"--delta must be positive and finite, got {arguments.delta:g}")
    return arguments


def _files(given: Sequence[str], cameras: Sequence[Camera]) -> dict[str, Path]:
    """Return each camera's file, by its name."""
    known = {camera.name for camera in cameras}
    files: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        path = Path(file if equals and name in known else text)
        name = name if equals and name in known else path.stem
        if name not in known:
            raise ValueError(
                f"{text}: no camera of the calibration is called {name!r}, they are "
                f"{', '.join(sorted(known))}; is it another rig's? NAME=FILE says which camera a file is of"
            )
        if name in files:
            raise ValueError(f"{text}: camera {name!r} has a file already, {files[name]}")
        files[name] = path
    if len(files) < 2:
        raise ValueError(f"points of space need two cameras, got {len(files)}")
    return files


def _read(path: Path) -> list[Frame]:
    reader = LineReader(str(path))
    with path.open("rb") as stream:
        frames = list(progress(reader.frames(stream), desc=path.stem, unit=" frames"))
    for frame in frames:
        if len(frame.sightings) > 1:
            raise ValueError(
                f"{path}: frame {frame.number} shows {len(frame.sightings)} objects, and which is which in "
                "the other cameras is not known; triangulate one object at a time"
            )
    if not any(frame.sightings for frame in frames):
        raise ValueError(f"{path}: no frame shows an object")
    return frames


def _together(films: Sequence[Sequence[Frame]]) -> tuple[list[int], list[Frame]]:
    """Return the numbers of the frames that any camera has, and one camera's frame of each."""
    by_number = {frame.number: frame for film in reversed(films) for frame in film}
    numbers = sorted(by_number)
    return numbers, [by_number[number] for number in numbers]


def _arrays(
    films: Sequence[Sequence[Frame]], numbers: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return places [V, T, K, 2] and covariances [V, T, K, 2, 2]; NaN where a camera has none."""
    counts = [len(f.sightings[0].landmarks) for film in films for f in film if f.sightings]
    if len(set(counts)) > 1:
        raise ValueError(f"the cameras have different landmarks: {min(counts)} and {max(counts)}")
    index = {number: i for i, number in enumerate(numbers)}
    places = np.full((len(films), len(numbers), counts[0], 2), np.nan)
    covariances = np.full((*places.shape, 2), np.nan)
    for view, film in enumerate(films):
        for frame in film:
            for sighting in frame.sightings:
                places[view, index[frame.number]] = sighting.landmarks
                covariances[view, index[frame.number]] = sighting.covariance
    return places, covariances


def _points(
    cameras: Sequence[Camera], places: np.ndarray, covariances: np.ndarray, delta: float
) -> Points:
    views = len(cameras)
    places, covariances = places.reshape(views, -1, 2), covariances.reshape(views, -1, 2, 2)
    parts = []
    with progress(total=places.shape[1], desc="triangulate", unit=" points") as bar:
        for start in range(0, places.shape[1], _TOGETHER):
            part = slice(start, start + _TOGETHER)
            parts.append(triangulate(cameras, places[:, part], covariances[:, part], delta))
            bar.update(len(parts[-1].place))
    return Points(
        *(np.concatenate(values) for values in zip(*(vars(p).values() for p in parts), strict=True))
    )


def _smoothed(points: Points, times: np.ndarray, shape: tuple[int, int], motion: str) -> Track:
    measured = Measurements.of(
        points.place.reshape(*shape, 3), points.covariance.reshape(*shape, 3, 3), times
    )
    order = {"velocity": 1, "acceleration": 2}[motion]
    with progress(total=len(times), desc="smooth", unit=" frames") as bar:
        return track_shots(measured, Settings(order), bar.update)[0]


def _names(landmarks: str | None, count: int) -> list[str]:
    known = chosen(landmarks, count)
    return list(known.names) if known else [str(k) for k in range(count)]


if __name__ == "__main__":
    run_main(main)
