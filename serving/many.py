"""Asks about any number of pictures, several requests at a time, with the answers in order."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from serving.landmark_client import MAX_ROWS, LandmarkClient, ServerError
from serving.sources import Picture
from tfhuber.pictures import is_outside

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
      landmarks: [K, 2] in the picture's pixels.
      covariance: [K, 2, 2] in square pixels.
      precision_factor: [K, 2, 2], None from models without it.
      drawing: what `draw` made of it.
    """

    picture: Picture
    error: str | None = None
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
        answers = _ask(client, [p for p in group if p.error is None], signature, square)
        if draw:
            for answer in answers:
                _draw(answer, draw)
        asked = iter(answers)
        return [next(asked) if p.error is None else Answer(p, p.error) for p in group]

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


def _ask(
    client: LandmarkClient, pictures: list[Picture], signature: str, square: str | None
) -> list[Answer]:
    """One request; should it be refused, its halves, until it is known which picture is to blame."""
    if not pictures:
        return []
    files, corners = zip(*(picture.file(square) for picture in pictures), strict=True)
    boxes = [
        np.zeros(4) if picture.box is None else picture.box - (*corner, *corner)
        for picture, corner in zip(pictures, corners, strict=True)
    ]
    try:
        found = client.predict(files, boxes, signature)
    except ServerError as error:
        if error.status not in _BLAMED_ON_PICTURES:
            raise
        if len(pictures) == 1:
            return [Answer(pictures[0], str(error))]
        half = len(pictures) // 2
        return [
            answer
            for part in (pictures[:half], pictures[half:])
            for answer in _ask(client, part, signature, square)
        ]
    factors = found.get("precision_factor", itertools.repeat(None))
    landmarks = found["landmarks"] + np.array(corners, np.float32)[:, np.newaxis]
    rows = zip(pictures, found["valid"], landmarks, found["covariance"], factors, strict=False)
    return [
        Answer(picture, None, landmarks, covariance, factor)
        if valid
        else Answer(picture, _unusable(picture))
        for picture, valid, landmarks, covariance, factor in rows
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
        except (ValueError, OSError) as error:  # what Pillow says of damage that TensorFlow accepts
            answer.error = f"it cannot be drawn on: {error}"
