"""The command that asks a model server for the landmarks of pictures, and writes or draws them.

    python -m serving.client photo.jpg --box 40,30,210,220 --output overlay.png
    python -m serving.client folder/ --boxes boxes.csv --jsonl found.jsonl --overlay drawn/
    python -m serving.client clip.mp4 --csv found.csv --overlay drawn.mp4

The server is TensorFlow Serving or `serving.local_server`; TensorFlow itself is not needed here, except
for `--grpc`. Positions are pixels of the image as it is stored: TensorFlow ignores an EXIF orientation,
so a photograph that viewers rotate is given to the model, and drawn, without that rotation.
"""

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.client.base import MAX_ROWS, LandmarkClient, ServerError
from serving.client.batches import MAX_PARALLEL, Answer, predict_in_batches
from serving.client.boxes import Boxes, read_boxes
from serving.client.measurements import Drift, box_area
from serving.client.rest import Client
from serving.client.result_options import add_result_options, result_files, result_writer
from serving.client.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, ImageFiles, Video, find_images
from serving.client.writers import Csv, JsonLines, OverlayFolder, OverlayVideo, Writer, overlay_name
from tfhuber.console.cli import import_tensorflow, progress, result_path, run_main, summary_stream
from tfhuber.console.lazy import lazy_module
from tfhuber.drawing.ellipses import standard_deviation
from tfhuber.drawing.fast_overlay import Painter
from tfhuber.saved_model import image_command
from tfhuber.saved_model.image_files import read_image
from tfhuber.saved_model.metadata import FLAGS, ModelMetadata

if TYPE_CHECKING:
    from serving.client import grpc as grpc_client
else:  # it imports TensorFlow
    grpc_client = lazy_module("serving.client.grpc")

__all__ = ["Client", "LandmarkClient", "ServerError", "main"]

# At most so many failures, and files that are not images, are named; the rest are counted.
_MAX_NAMED = 10


def main() -> int:
    """Run the command and return its exit status: 1 if some of several pictures failed."""
    parser, arguments = _parse()
    for name, most in (("batch", MAX_ROWS), ("parallel", MAX_PARALLEL)):
        if not 1 <= getattr(arguments, name) <= most:
            raise ValueError(f"--{name} must be from 1 to {most}, got {getattr(arguments, name)}")
    for_many = result_files(arguments) or arguments.jsonl or arguments.csv or arguments.overlay
    if arguments.output or arguments.json:
        if for_many:
            parser.error(
                "--output and --json don't go with --jsonl, --csv, --results and --overlay"
            )
        if len(arguments.sources) > 1 or not _is_picture(arguments.sources[0]):
            parser.error("--output and --json are for one picture; use --overlay, --jsonl or --csv")
        return _predict_one(arguments)
    if not for_many:
        parser.error(
            "nothing to write: give --output, --json or both for one picture, "
            "--jsonl, --csv, --results or --overlay for any number"
        )
    return _predict_all(arguments)


def _parse() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m serving.client",
        description="Finds the landmarks of pictures with a model server.",
        epilog="The exit status is 1 if some of several pictures failed, and 2 on an error.",
    )
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="JPEG or PNG files, folders of them, or a video",
    )
    image_command.add_options(parser)
    add(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="a box for each picture: lines of NAME,X0,Y0,X1,Y1, with a frame's number from 0 for a "
        'name in a video; or, in a .jsonl, of {"source": NAME or "frame": NUMBER, "box": [...]}',
    )
    add("--recursive", action="store_true", help="look into the folders within a folder too")
    table: dict[str, Any] = {"type": result_path, "metavar": "FILE"}
    add("--jsonl", **table, help="a file for a line of JSON for each picture (- as for --json)")
    add("--csv", **table, help="a file for a row of x, y, sxx, sxy, syy for each landmark")
    add(
        "--overlay",
        type=Path,
        help="where drawn pictures go: a folder, or, for a video, a file ending in .mp4",
    )
    add_result_options(parser)
    _add_server_options(parser)
    return parser, parser.parse_args()


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    server = parser.add_argument_group("server")
    where = server.add_mutually_exclusive_group()
    where.add_argument(
        "--url",
        default="http://localhost:8501",
        help="TensorFlow Serving's or the local server's (default: %(default)s)",
    )
    where.add_argument("--grpc", metavar="HOST:PORT", help="ask over gRPC instead of REST")
    server.add_argument(
        "--model", default="wflw", help="the name it is served under (default: %(default)s)"
    )
    which = server.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, help="the model's version (default: the latest)")
    which.add_argument("--label", help="the label of a version, such as stable")
    server.add_argument(
        "--tta", action="store_true", help="fuse with the prediction for the mirror image"
    )
    server.add_argument(
        "--batch",
        type=int,
        default=8,
        help=f"pictures in a request, at most {MAX_ROWS} (default: %(default)s)",
    )
    server.add_argument(
        "--parallel", type=int, default=3, help="requests at a time (default: %(default)s)"
    )
    server.add_argument(
        "--timeout", type=float, default=60.0, help="seconds for an answer (default: %(default)g)"
    )
    server.add_argument(
        "--retries",
        type=int,
        default=3,
        help="how often to ask again where a server is busy or away (default: %(default)s)",
    )


def _connect(arguments: argparse.Namespace) -> LandmarkClient:
    options = {
        name: getattr(arguments, name) for name in ("version", "label", "timeout", "retries")
    }
    if arguments.grpc is None:
        return Client(arguments.url, arguments.model, **options)
    import_tensorflow()
    return grpc_client.GrpcClient(arguments.grpc, arguments.model, **options)


def _predict_one(arguments: argparse.Namespace) -> int:
    (path,) = arguments.sources
    image_bytes, image = read_image(path)
    image_command.check_outputs(arguments, [path, arguments.boxes])
    box = _boxes(arguments, image.size).find(str(path), path.name)
    with _connect(arguments) as client:
        boxes = None if box is None else [box]
        metadata = ModelMetadata.parse(client.metadata())
        signature = metadata.image_signature(arguments.tta)
        found = client.predict([image_bytes], boxes, signature)
        if not found["valid"].all():
            fault = f"the server could not decode {path}"
            if box is not None:
                fault += ", or --box is too small or too far away"
            raise ValueError(fault)
    row = {name: values[0] for name, values in found.items()}
    metadata = metadata.of(signature)
    image_command.write_result(arguments, image, row, box, metadata)
    return 0


def _predict_all(arguments: argparse.Namespace) -> int:
    source = _source(arguments)
    _check_outputs(arguments, source)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_connect(arguments))
        described = client.metadata()
        metadata = ModelMetadata.parse(described)
        signature = metadata.image_signature(arguments.tta)
        metadata = metadata.of(signature)
        client.landmark_count(signature)  # an error now, not one for each picture
        writers = [stack.enter_context(writer) for writer in _writers(arguments, source, metadata)]
        draw = next((writer.draw for writer in writers if hasattr(writer, "draw")), None)
        bar = stack.enter_context(
            progress(total=source.count, desc=arguments.model, unit=f" {source.unit}")
        )
        # The model's reference quantiles are of predictions without the mirror image.
        drift = None if arguments.tta else Drift.of(described)
        summary = _Summary(source, drift, metadata.deviation)
        answers = predict_in_batches(
            client,
            source,
            signature=signature,
            square=metadata.square,
            batch=arguments.batch,
            parallel=arguments.parallel,
            draw=draw,
        )
        stack.enter_context(contextlib.closing(answers))
        for answer in answers:
            for writer in writers:
                writer.write(answer)
            summary.add(answer)
            bar.update()
    summary.print([writer.path for writer in writers if writer.path.exists()])
    return 1 if summary.failures or source.cut_short else 0


class _Summary:
    """Counts of what has come back, printed at the end."""

    def __init__(self, source: ImageFiles | Video, drift: Drift | None, deviation: str):
        self.failures = 0
        self._source = source
        self._drift = drift
        self._deviation = deviation
        self._failures_named: list[str] = []
        self._count = 0
        self._deviations: list[float] = []
        self._flags: dict[str, list[float]] = {name: [] for name in FLAGS}
        self._started = time.monotonic()

    def add(self, answer: Answer) -> None:
        self._count += 1
        picture = answer.picture
        if fault := answer.error or answer.drawing_error:
            self.failures += 1
            if len(self._failures_named) < _MAX_NAMED:
                frame = "" if picture.number is None else f", frame {picture.number}"
                self._failures_named.append(f"{picture.source}{frame}: {fault}")
        if answer.error:
            return
        self._deviations.append(float(np.median(standard_deviation(answer.covariance))))
        for name, shares in self._flags.items():
            if name in answer.optional:
                shares.append(float(np.mean(answer.optional[name])))
        if self._drift:
            self._drift.add(answer.covariance, box_area(picture.box, picture.size))

    def print(self, paths: list[Path]) -> None:
        seconds = time.monotonic() - self._started
        for line in self._failures_named:
            print(f"failed: {line}", file=sys.stderr)
        if more := self.failures - len(self._failures_named):
            print(f"failed: {more} more", file=sys.stderr)
        if self._source.cut_short:
            print(f"failed: {self._source.cut_short}", file=sys.stderr)
        if unused := self._source.boxes.unused():
            print(
                f"note: {len(unused)} of the boxes in --boxes belong to none of the "
                f"{self._source.unit}, the first to {unused[0]}",
                file=sys.stderr,
            )
        if self._source.oriented:
            print(
                f"note: viewers are asked to turn {self._source.oriented} of the {self._source.unit} "
                "or the video; the model sees pixels as stored, and so do the results",
                file=sys.stderr,
            )
        out = summary_stream(paths)
        line = f"{self._count - self.failures} of {self._count} {self._source.unit}"
        line += f" in {seconds:.2f} seconds"
        if self._deviations:
            line += f", median {self._deviation} {np.median(self._deviations):.2f} pixels"
        if shares := self._flags["reliable"]:
            line += f", {100 * np.mean(shares):.0f} % of landmarks reliable"
        print(f"{line}; wrote {' and '.join(map(str, paths)) or 'nothing'}", file=out)
        if foreign := self._flags["in_distribution"].count(0.0):
            print(f"note: {foreign} of them are like nothing that the model knows", file=out)
        if self._drift and self._drift.landmarks:
            print(self._drift.describe(), file=out)


def _source(arguments: argparse.Namespace) -> ImageFiles | Video:
    """Return what to ask about, opened."""
    paths, boxes = arguments.sources, _boxes(arguments)
    if any(path.suffix.lower() in VIDEO_SUFFIXES for path in paths):
        if len(paths) > 1:
            raise ValueError(f"a video must be the only source, got {len(paths)}")
        return Video(paths[0], boxes)
    images, others = find_images(paths, arguments.recursive)
    if others:
        names = ", ".join(map(str, others[:_MAX_NAMED])) + ", ..." * (len(others) > _MAX_NAMED)
        print(f"note: left out {len(others)} files that are no pictures: {names}", file=sys.stderr)
    return ImageFiles(images, boxes)


def _writers(
    arguments: argparse.Namespace, source: ImageFiles | Video, metadata: ModelMetadata
) -> list[Writer]:
    writers: list[Writer] = []
    if arguments.jsonl:
        writers.append(JsonLines(arguments.jsonl))
    if arguments.csv:
        writers.append(Csv(arguments.csv, metadata.names))
    if arguments.results:
        writers.append(result_writer(arguments, metadata))
    if arguments.overlay:
        painter = Painter(metadata.edges, family=metadata.family, delta=metadata.delta)
        if isinstance(source, Video) and arguments.overlay.suffix.lower() in VIDEO_SUFFIXES:
            writers.append(OverlayVideo(arguments.overlay, painter, source))
        else:
            writers.append(OverlayFolder(arguments.overlay, painter))
    return writers


def _check_outputs(arguments: argparse.Namespace, source: ImageFiles | Video) -> None:
    """Refuse results in places that are for something else."""
    overlay = arguments.overlay
    written = [arguments.jsonl, arguments.csv, *result_files(arguments), overlay]
    read: Sequence[Path]
    if isinstance(source, ImageFiles):
        if overlay and overlay.suffix.lower() in IMAGE_SUFFIXES and not overlay.is_dir():
            raise ValueError(
                f"--overlay {overlay} is to be a folder; for one picture there is --output"
            )
        if overlay and overlay.suffix.lower() in VIDEO_SUFFIXES:
            raise ValueError(f"--overlay {overlay} is a video; pictures are drawn into a folder")
        read = list(source.paths.values())
        if overlay:
            written += [overlay / overlay_name(name) for name in source.paths]
    else:
        if overlay and overlay.suffix and overlay.suffix.lower() != ".mp4":
            raise ValueError(f"--overlay {overlay} must end in .mp4, or be a folder")
        read = [source.path]
    image_command.refuse_overwriting(written, [*read, arguments.boxes])


def _is_picture(path: Path) -> bool:
    return not path.is_dir() and path.suffix.lower() not in VIDEO_SUFFIXES


def _boxes(arguments: argparse.Namespace, size: tuple[int, int] | None = None) -> Boxes:
    default = None if arguments.box is None else image_command.parse_box(arguments.box, size)
    return Boxes(default, None if arguments.boxes is None else read_boxes(arguments.boxes))


class _Terminated(KeyboardInterrupt):
    """What SIGTERM raises, so that it ends the command as an interrupt does: results so far are kept."""

    status = 128 + signal.SIGTERM


def _terminate(*_: object) -> None:
    raise _Terminated


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    run_main(main)
