"""Asks about any number of pictures, several requests at a time, with the answers in order."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from serving.client.base import MAX_ROWS, LandmarkClient, ServerError
from serving.client.sources import Picture
from tfhuber.saved_model.pictures import is_outside

__all__ = ["MOST_PARALLEL", "Answer", "ask_many"]

MOST_PARALLEL = 64

# Decoded frames of a large video that share a request are bounded too, not only their number.
_MOST_WEIGHT = 48 * 2**20

# The server refused what was sent, or could not compute it: one picture of several may be the cause.
_BLAMED_ON_PICTURES = (400, 413, 500)


@dataclass
class Answer:
    """What came back for a picture.

    Attributes:
      picture: the one that was asked about.
      error: why there are no landmarks; None if there are, and then only is the rest there.
      undrawn: why `draw` failed; None if it did not.
      landmarks: [K, 2] in the picture's pixels.
      covariance: [K, 2, 2] in square pixels.
      precision_factor: [K, 2, 2], None from models without it.
      drawing: what `draw` made of it.
    """

    picture: Picture
    error: str | None = None
    undrawn: str | None = None
    landmarks: np.ndarray | None = None
    covariance: np.ndarray | None = None
    precision_factor: np.ndarray | None = None
    drawing: object = None


def ask_many(
    client: LandmarkClient,
    pictures: Iterable[Picture],
    *,
    signature: str = "serving_default",
    square: str | None = None,
    batch: int = 8,
    parallel: int = 3,
    draw: Callable[[Answer], object] | None = None,
) -> Iterator[Answer]:
    """Yields the answer for each picture, in the order of the pictures.

    Pictures are read as answers are taken, so that memory holds those of `parallel` + 1 requests
    however many there are. A picture that cannot be read, or that the server refuses, gives
    an answer with an error. An error that is not of one picture's making is raised.

    Args:
      client: whom to ask.
      pictures: what to ask about.
      signature: as for `LandmarkClient.predict`.
      square: how the model looks at a box (`square` in its metadata), so that no more of a video's
        frame is sent than it sees; None to send all.
      batch: pictures in a request, fewer if they are large.
      parallel: requests under way at a time.
      draw: called for each answer with landmarks, in the threads that ask, before it is yielded.

    Raises:
      ValueError: `batch` or `parallel` is out of range.
      ServerError, ConnectionError, TimeoutError: as `LandmarkClient.predict`.
    """
    if not 1 <= batch <= MAX_ROWS:
        raise ValueError(f"batch must be from 1 to {MAX_ROWS}, got {batch}")
    if not 1 <= parallel <= MOST_PARALLEL:
        raise ValueError(f"parallel must be from 1 to {MOST_PARALLEL}, got {parallel}")

    def work(group: list[Picture]) -> list[Answer]:
        files = [_file(picture, square) for picture in group if picture.error is None]
        found = iter(_ask(client, [file for file in files if file], signature))
        answers = [Answer(p, p.error) if p.error else next(found) for p in group]
        if draw:
            for answer in answers:
                _draw(answer, draw)
        return answers

    # One request more than are under way waits, so that the threads never do.
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="ask")
    try:
        for group in _groups(pictures, batch):
            waiting.append(pool.submit(work, group))
            if len(waiting) > parallel:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _groups(pictures: Iterable[Picture], batch: int) -> Iterator[list[Picture]]:
    group: list[Picture] = []
    for picture in pictures:
        weight = sum(each.weight for each in group) + picture.weight
        if group and (len(group) == batch or weight > _MOST_WEIGHT):
            yield group
            group = []
        group.append(picture)
    if group:
        yield group


@dataclass
class _File:
    """What is sent of a picture: a file whose first pixel is the picture's `corner`."""

    picture: Picture
    data: bytes
    corner: tuple[int, int]

    @property
    def box(self) -> np.ndarray:
        """[4] in the file's pixels; zeros for all of it."""
        box = self.picture.box
        return np.zeros(4) if box is None else box - np.tile(self.corner, 2)


def _file(picture: Picture, square: str | None) -> _File | None:
    """None, with the picture's error set, if it cannot be made, as of a frame in rare colours."""
    try:
        return _File(picture, *picture.file(square))
    except (ValueError, OSError) as error:
        picture.error = f"it cannot be turned into a JPEG: {getattr(error, 'strerror', 0) or error}"
        return None


def _ask(client: LandmarkClient, files: list[_File], signature: str) -> list[Answer]:
    """One request; should it be refused, its halves, until it is known which picture is to blame."""
    if not files:
        return []
    try:
        found = client.predict(
            [file.data for file in files], [file.box for file in files], signature
        )
    except ServerError as error:
        if error.status not in _BLAMED_ON_PICTURES:
            raise
        if len(files) == 1:
            return [Answer(files[0].picture, str(error))]
        half = len(files) // 2
        return _ask(client, files[:half], signature) + _ask(client, files[half:], signature)
    factors = found.get("precision_factor", itertools.repeat(None))
    rows = zip(
        files, found["valid"], found["landmarks"], found["covariance"], factors, strict=False
    )
    return [
        Answer(
            file.picture,
            landmarks=landmarks + np.array(file.corner, np.float32),
            covariance=covariance,
            precision_factor=factor,
        )
        if valid
        else Answer(file.picture, _unusable(file.picture))
        for file, valid, landmarks, covariance, factor in rows
    ]


def _unusable(picture: Picture) -> str:
    if picture.box is None:
        return "the server could not decode it"
    if is_outside(picture.box, picture.size):
        width, height = picture.size
        box = ",".join(f"{side:g}" for side in picture.box)
        return f"its box {box} is outside of it: it has {width} x {height} pixels"
    return "the server could not decode it, or its box is too small or far too large"


def _draw(answer: Answer, draw: Callable[[Answer], object]) -> None:
    if answer.error is None:
        try:
            answer.drawing = draw(answer)
        except (ValueError, OSError, MemoryError) as error:  # of damage that TensorFlow accepts
            answer.undrawn = f"it cannot be drawn on: {error}"
