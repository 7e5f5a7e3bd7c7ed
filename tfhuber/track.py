"""Follow landmarks through a film: `python -m tfhuber.track FOUND.jsonl --jsonl TRACKS.jsonl`.

Reads the lines of JSON that serving.client and predict_all write, from a file or, as `-`, from a pipe,
and writes each object's places and velocities with their covariances, smoothed by all frames. With `--live`
a line goes out for each that comes in, at once, of what is known until then.

All that is written is made aside and gets its name when it is whole, and the same lines give the same
bytes: a command that was killed is started again.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from serving.client.batches import Answer
from serving.client.result_options import add_result_options, result_files, result_writer
from serving.client.sources import VIDEO_SUFFIXES, Boxes, Picture, Video
from serving.client.writers import OverlayVideo
from tfhuber.calibration.dependence import correlation
from tfhuber.console.cli import progress, result_path, run_main, summary_stream
from tfhuber.console.files import Aside, blamed, is_stream, read_json
from tfhuber.console.signals import Interrupted, SignalWatch
from tfhuber.drawing.fast_overlay import Painter
from tfhuber.landmarks.chosen import chosen
from tfhuber.saved_model.metadata import ModelMetadata, joint_factor
from tfhuber.tracking.film import DELTA, ObjectTrack, Settings, frame_times, track_film
from tfhuber.tracking.follower import Estimate
from tfhuber.tracking.lines import Frame, LineReader
from tfhuber.tracking.live import LiveFilm
from tfhuber.tracking.measures import Questions, parse_measure
from tfhuber.tracking.track_lines import (
    CSV_HEADER,
    csv_rows,
    measures_header,
    measures_row,
    track_line,
)

__all__ = ["main"]


def main() -> int:
    """Run the command and return its exit status."""
    arguments = _parse()
    settings = Settings(
        {"velocity": 1, "acceleration": 2}[arguments.motion],
        arguments.delta,
        not arguments.filter_only,
        arguments.lost,
    )
    reader = LineReader("the standard input" if arguments.lines == "-" else arguments.lines)
    with _opened(arguments.lines) as stream:
        if arguments.live:
            _follow_live(reader, stream, arguments, settings)
        else:
            _track_whole(reader, stream, arguments, settings)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tfhuber.track", description=__doc__)
    add = parser.add_argument
    add("lines", metavar="LINES", help="a file of serving.client --jsonl, or - for a pipe")
    add(
        "--jsonl", type=result_path, metavar="FILE", help="a line of JSON for each object and frame"
    )
    add("--csv", type=result_path, metavar="FILE", help="a row for each landmark")
    add("--overlay", type=Path, metavar="FILE", help="the video, drawn on, ending in .mp4")
    add("--video", type=Path, metavar="FILE", help="to draw on (default: the lines' source)")
    add("--live", action="store_true", help="a line out for each line in, at once")
    add("--filter-only", action="store_true", help="no frame knows of those after it")
    add(
        "--motion",
        choices=("velocity", "acceleration"),
        default="velocity",
        help="what stays as it is from frame to frame but for noise (default: %(default)s)",
    )
    add(
        "--delta", type=float, default=DELTA, help="knee of the jitter's law (default: %(default)g)"
    )
    add(
        "--lost",
        type=float,
        default=50.0,
        metavar="FRAMES",
        help="after which a lost object is over",
    )
    add(
        "--landmarks",
        metavar="NAME",
        help="the landmark set, or its JSON file, for names and edges",
    )
    _add_measures(parser)
    add_result_options(parser)
    arguments = parser.parse_args()
    arguments.model = "tfhuber_track"
    if not arguments.delta > 0:
        raise ValueError(f"--delta must be positive, got {arguments.delta:g}")
    if arguments.overlay and arguments.overlay.suffix.lower() != ".mp4":
        raise ValueError(f"--overlay {arguments.overlay} must end in .mp4")
    if not arguments.lost > 0:
        raise ValueError(f"--lost must be positive, got {arguments.lost:g}")
    if arguments.live:
        for name in ("csv", "overlay", "results", "filter_only", "measures"):
            if getattr(arguments, name):
                raise ValueError(
                    f"--live writes lines of JSON only; leave out --{name.replace('_', '-')}"
                )
        arguments.jsonl = arguments.jsonl or result_path("-")
    elif not any(
        (arguments.jsonl, arguments.csv, arguments.overlay, arguments.results, arguments.measures)
    ):
        raise ValueError(
            "nothing to write: give --jsonl, --csv, --results, --measures or --overlay"
        )
    if bool(arguments.measures or arguments.model_json) and not arguments.measure:
        raise ValueError("--measures and --model-json are for --measure; say what to measure")
    return arguments


def _add_measures(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("measures").add_argument
    add(
        "--measure",
        action="append",
        default=[],
        metavar="NAME=KIND(LANDMARK,...)",
        help="a question to each shape, such as eye=distance(60,64): distance of two landmarks, angle at "
        "the second of three, ratio of two distances; in each line of --jsonl, with its deviation",
    )
    add("--measures", type=result_path, metavar="FILE", help="a row of answers for each object")
    add(
        "--model-json",
        type=Path,
        metavar="FILE",
        help="the model's assets.extra/model.json, which says how landmarks go together",
    )


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    if Path(name).suffix.lower() in VIDEO_SUFFIXES:
        raise ValueError(
            f"{name} is a video; find its landmarks first, through a pipe if you like: "
            f"tfhuber client {name} --jsonl - | tfhuber track - --jsonl tracks.jsonl"
        )
    with Path(name).open("rb") as stream:
        yield stream


def _follow_live(
    reader: LineReader, stream: BinaryIO, arguments: argparse.Namespace, settings: Settings
) -> None:
    film, count, questions = LiveFilm(settings), 0, None
    with SignalWatch() as watch, Aside(arguments.jsonl) as aside:
        out = aside.open()
        with contextlib.suppress(Interrupted):  # how most live films end: what was written is kept
            for frame in reader.read(stream):
                with blamed(arguments.jsonl):
                    for each in film.see(frame):
                        if questions is None:
                            questions = _questions(arguments, len(each.estimate.place))
                        line = track_line(
                            frame, each.number, each.estimate, each.box, film.rate, questions
                        )
                        out.write(line.decode() + "\n")
                        count += 1
                    out.flush()
            watch.defer()
        watch.defer()
        if not count and watch.received is None:
            raise ValueError(_nothing(reader))
    _note(reader)
    if watch.received is not None:
        raise watch.interrupted(f"{arguments.jsonl} holds the {count} lines until then")


def _track_whole(
    reader: LineReader, stream: BinaryIO, arguments: argparse.Namespace, settings: Settings
) -> None:
    tables = [arguments.jsonl, arguments.csv, arguments.measures]
    paths = [path for path in (*tables, *result_files(arguments), arguments.overlay) if path]
    for path in paths:
        if arguments.lines != "-" and path.exists() and path.samefile(arguments.lines):
            raise ValueError(f"{path} is what is read; write to another file")
    frames = list(progress(reader.frames(stream), desc="read", unit=" frames"))
    if not any(frame.sightings for frame in frames):
        raise ValueError(_nothing(reader))
    count = next(len(each.landmarks) for frame in frames for each in frame.sightings)
    names, questions = _names(arguments, count), _questions(arguments, count)
    with progress(total=len(frames), desc="track", unit=" frames") as bar:
        objects = track_film(frames, settings, bar.update)
    _, rate = frame_times(frames)
    _write_lines(arguments, frames, objects, rate, names, questions)
    if arguments.measures:
        _write_measures(arguments.measures, frames, objects, questions)
    if arguments.results:
        _write_results(arguments, frames, objects, names)
    if arguments.overlay:
        _write_overlay(arguments, frames, objects, names)
    _note(reader)
    _summarise(frames, objects, rate, paths)


def _nothing(reader: LineReader) -> str:
    if reader.failures:
        return (
            f"no picture shows an object: {reader.failures} have no answer ({reader.first_failure})"
        )
    if reader.damaged:
        return f"no line is a prediction: {reader.damaged} are damaged ({reader.first_damaged})"
    return "there are no lines: no picture shows an object"


def _note(reader: LineReader) -> None:
    if reader.damaged:
        print(
            f"note: left out {reader.damaged} damaged lines, the first {reader.first_damaged}",
            file=sys.stderr,
        )


def _names(arguments: argparse.Namespace, count: int) -> ModelMetadata:
    """Return what is known of the landmarks; the tracks' law is Gauss's."""
    known = chosen(arguments.landmarks, count)
    if known is None:
        return ModelMetadata([str(k) for k in range(count)], [], "gauss", 1.0, 1.0, None)
    return ModelMetadata(list(known.names), list(known.edges), "gauss", 1.0, 1.0, None)


def _questions(arguments: argparse.Namespace, count: int) -> Questions:
    names, correlated = _names(arguments, count).names, None
    if arguments.model_json:
        values = read_json(arguments.model_json)
        try:
            about, factor = ModelMetadata.parse(values), joint_factor(values, "serving_default")
        except ValueError as error:
            raise ValueError(f"--model-json {arguments.model_json}: {error}") from None
        if len(about.names) != count:
            raise ValueError(
                f"--model-json {arguments.model_json} is of {len(about.names)} landmarks, and the lines "
                f"of {count}"
            )
        if factor is None:
            print(
                f"note: {arguments.model_json} says nothing of how landmarks go together; each errs by "
                "itself in --measure",
                file=sys.stderr,
            )
        names, correlated = about.names, None if factor is None else correlation(factor)
    measures = tuple(parse_measure(text, names) for text in arguments.measure)
    twice = {each.name for each in measures if [m.name for m in measures].count(each.name) > 1}
    if twice:
        raise ValueError(f"--measure: {min(twice)!r} is asked twice; give each a name of its own")
    return Questions(measures, correlated)


def _estimate(each: ObjectTrack, index: int) -> Estimate | None:
    """Return an object in the frame with that index; None if it is not there."""
    at = index - each.first
    if not 0 <= at < len(each.boxes):
        return None
    return Estimate(*(values[at] for values in vars(each.track).values()))


def _write_lines(
    arguments: argparse.Namespace,
    frames: Sequence[Frame],
    objects: Sequence[ObjectTrack],
    rate: float | None,
    names: ModelMetadata,
    questions: Questions,
) -> None:
    with contextlib.ExitStack() as stack:
        lines, rows = (
            stack.enter_context(Aside(path)).open(newline="") if path else None
            for path in (arguments.jsonl, arguments.csv)
        )
        if rows:
            rows.write(CSV_HEADER)
        for index, frame in enumerate(frames):
            for each in objects:
                estimate = _estimate(each, index)
                if estimate is None:
                    continue
                if lines:
                    box = each.boxes[index - each.first]
                    line = track_line(frame, each.number, estimate, box, rate, questions)
                    lines.write(line.decode() + "\n")
                if rows:
                    rows.writelines(csv_rows(frame, each.number, estimate, rate, names.names))


def _write_measures(
    path: Path, frames: Sequence[Frame], objects: Sequence[ObjectTrack], questions: Questions
) -> None:
    with Aside(path) as aside:
        rows = aside.open(newline="")
        rows.write(measures_header(questions))
        for index, frame in enumerate(frames):
            for each in objects:
                estimate = _estimate(each, index)
                if estimate is not None:
                    rows.write(measures_row(frame, each.number, estimate, questions))


def _write_results(
    arguments: argparse.Namespace,
    frames: Sequence[Frame],
    objects: Sequence[ObjectTrack],
    names: ModelMetadata,
) -> None:
    """Write a pose tool's file, and one more for each further object, whose number its name ends with."""
    path = arguments.results
    for each in objects:
        if each.number > 1:
            if is_stream(path):
                raise ValueError(
                    f"--results {path} is a stream, which cannot hold {len(objects)} objects"
                )
            arguments.results = path.with_name(f"{path.stem}_{each.number}{path.suffix}")
        with result_writer(arguments, names) as writer:
            for answer in _answers(each, frames):
                writer.write(answer)
    arguments.results = path


def _answers(each: ObjectTrack, frames: Iterable[Frame]) -> Iterator[Answer]:
    for index, frame in enumerate(frames):
        number = frame.number if frame.is_video else None
        picture = Picture(frame.source, number, frame.seconds)
        estimate = _estimate(each, index)
        if estimate is None:
            yield Answer(picture, "the object is not there")
        else:
            picture.box = each.boxes[index - each.first]
            yield Answer(picture, landmarks=estimate.place, covariance=estimate.place_covariance)


def _write_overlay(
    arguments: argparse.Namespace,
    frames: Sequence[Frame],
    objects: Sequence[ObjectTrack],
    names: ModelMetadata,
) -> None:
    source = arguments.video or Path(frames[0].source)
    if not frames[0].is_video and arguments.video is None:
        raise ValueError(
            "--overlay draws on a video, and these lines are of pictures; give --video"
        )
    video = Video(source, Boxes(None, None))
    painter = Painter(names.edges, family=names.family)
    indices = {frame.number: index for index, frame in enumerate(frames)}
    writer = OverlayVideo(arguments.overlay, painter, video)
    with writer, progress(total=video.count, desc="draw", unit=" frames") as bar:
        for picture in video:
            answer = Answer(picture, picture.error)
            index = indices.get(picture.number if picture.number is not None else -1)
            shown = [] if index is None or picture.error else [_estimate(o, index) for o in objects]
            for estimate in shown:  # each is drawn on top of those before
                if estimate is not None:
                    answer.landmarks = np.nan_to_num(estimate.place, nan=-1e9)
                    answer.covariance = estimate.place_covariance
                    answer.drawing = writer.draw(answer)
            writer.write(answer)
            bar.update()


def _summarise(
    frames: Sequence[Frame], objects: Sequence[ObjectTrack], rate: float | None, paths: list[Path]
) -> None:
    out = summary_stream(paths)
    unit = "second" if rate else "frame"
    print(f"{len(frames)} frames, velocities in pixels a {unit}", file=out)
    for each in objects:
        motion = each.motion
        last = frames[each.first + len(each.boxes) - 1].number
        cuts = f", {len(each.cuts)} cuts" if each.cuts else ""
        print(
            f"object {each.number}: frames {frames[each.first].number} to {last}{cuts}; "
            f"{100 * np.median(motion.share):.0f} % of the variance persists, for "
            f"{np.median(motion.time):.0f} frames",
            file=out,
        )
    if len(frames) == 1:
        print("note: of one frame no velocity is known", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
