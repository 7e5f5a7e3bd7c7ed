"""Predictions for any number of pictures: several requests at a time, with the answers in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.client.base import MAX_ROWS, OPTIONAL, LandmarkClient, ServerError
from serving.client.sources import Picture
from tfhuber.geometry.boxes import is_outside

__all__ = ["MAX_PARALLEL", "Answer", "predict_in_batches"]

MAX_PARALLEL = 64

# Bytes of memory that the decoded frames of a request may take.
_MAX_WEIGHT = 48 * 2**20

# The server refused the request, or could not compute it: one picture of several may be the cause.
_BLAMED_ON_PICTURES = (400, 413, 500)


@dataclass
class Answer:
    """What came back for a picture.

    Attributes:
      picture: the one that was asked about.
      error: why there are no landmarks; None if there are.
      drawing_error: why `draw` failed; None if it did not.
      landmarks: [K, 2] in the picture's pixels; K is 0 if there is an error.
      covariance: [K, 2, 2] in square pixels.
      optional: what else the model says of it, by the names in `base.OPTIONAL`.
      drawing: what `draw` returned.
    """

    picture: Picture
    error: str | None = None
    drawing_error: str | None = None
    landmarks: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    covariance: np.ndarray = field(default_factory=lambda: np.zeros((0, 2, 2)))
    optional: dict[str, np.ndarray] = field(default_factory=dict)
    drawing: Any = None


def predict_in_batches(
    client: LandmarkClient,
    pictures: Iterable[Picture],
    *,
    signature: str = "serving_default",
    square: str | None = None,
    batch: int = 8,
    parallel: int = 3,
    draw: Callable[[Answer], object] | None = None,
) -> Generator[Answer, None, None]:
    """Yield the answer for each picture, in the order of the pictures.

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
    if not 1 <= parallel <= MAX_PARALLEL:
        raise ValueError(f"parallel must be from 1 to {MAX_PARALLEL}, got {parallel}")

    def predict_group(group: list[Picture]) -> list[Answer]:
        uploads = [_upload(picture, square) for picture in group if picture.error is None]
        found = iter(_predict(client, [upload for upload in uploads if upload], signature))
        answers = [Answer(p, p.error) if p.error else next(found) for p in group]
        if draw:
            for answer in answers:
                _draw(answer, draw)
        return answers

    # One more request than there are threads is prepared, so that no thread ever waits for one.
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="ask")
    try:
        for group in _groups(pictures, batch):
            waiting.append(pool.submit(predict_group, group))
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
        if group and (len(group) == batch or weight > _MAX_WEIGHT):
            yield group
            group = []
        group.append(picture)
    if group:
        yield group


@dataclass
class _Upload:
    """What is sent of a picture: an image file whose first pixel is the picture's `corner`."""

    picture: Picture
    data: bytes
    corner: tuple[int, int]

    @property
    def box(self) -> np.ndarray:
        """[4] in the file's pixels; zeros for all of it."""
        box = self.picture.box
        return np.zeros(4) if box is None else box - np.tile(self.corner, 2)


def _upload(picture: Picture, square: str | None) -> _Upload | None:
    """Return what to send; None, with the picture's error set, if it cannot be made.

    That is so for a frame in rare colours.
    """
    try:
        return _Upload(picture, *picture.file(square))
    except (ValueError, OSError) as error:
        picture.error = f"it cannot be turned into a JPEG: {getattr(error, 'strerror', 0) or error}"
        return None


def _predict(client: LandmarkClient, uploads: list[_Upload], signature: str) -> list[Answer]:
    """Send one request; should it be refused, its halves, until the picture to blame is known."""
    if not uploads:
        return []
    try:
        files, boxes = [upload.data for upload in uploads], [upload.box for upload in uploads]
        found = client.predict(files, boxes, signature)
    except ServerError as error:
        if error.status not in _BLAMED_ON_PICTURES:
            raise
        if len(uploads) == 1:
            return [Answer(uploads[0].picture, str(error))]
        half = len(uploads) // 2
        first, second = uploads[:half], uploads[half:]
        return _predict(client, first, signature) + _predict(client, second, signature)
    return [
        Answer(
            upload.picture,
            landmarks=found["landmarks"][i] + np.array(upload.corner, np.float32),
            covariance=found["covariance"][i],
            optional={name: found[name][i] for name in OPTIONAL if name in found},
        )
        if found["valid"][i]
        else Answer(upload.picture, _unusable(upload.picture))
        for i, upload in enumerate(uploads)
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
        except (
            ValueError,
            OSError,
            MemoryError,
        ) as error:  # TensorFlow decodes some damaged files that Pillow refuses
            answer.drawing_error = f"it cannot be drawn on: {error}"
