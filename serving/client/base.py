"""What the clients for REST and gRPC share: batches, retries, checks of answers, metadata."""

import abc
import io
import json
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from tfhuber.drawing.ellipses import kappa
from tfhuber.landmarks.known_sets import by_count
from tfhuber.saved_model.metadata import FLAGS, ModelMetadata

__all__ = ["MAX_ROWS", "LandmarkClient", "ServerError"]

# Images in a request; an exported model takes no more.
MAX_ROWS = 256

# Bytes of images in a request; in base64 well below the 64 MiB that the local server reads.
_MAX_BYTES = 32 * 2**20

# Outputs that a model may have beside `landmarks`, `covariance` and `valid`, and their type.
OPTIONAL = {"precision_factor": np.float32, **dict.fromkeys(FLAGS, np.bool_)}

# Too many requests, and the answers of a proxy or server that is starting, stopping or overloaded.
_TRANSIENT = (429, 502, 503, 504)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_LONGEST_TIMEOUT = 86_400


class ServerError(ValueError):
    """A server's answer that is not a prediction.

    Attributes:
      status: the HTTP status, or the one that a gRPC code stands for.
      retry_after: seconds for which the server asks to be left alone, if it does.
    """

    def __init__(self, message: str, status: int, retry_after: float | None = None):
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class LandmarkClient(abc.ABC):
    """A client of a landmark model behind a server; a context manager, or call `close`.

    Its methods may be called from several threads at once.

    An answer of 429, 502, 503 or 504 (UNAVAILABLE or RESOURCE_EXHAUSTED over gRPC) and a connection
    that fails are tried again after a pause. It doubles from 0.2 seconds on, is shortened at random by
    up to a half, so that many clients don't come back together, and is never shorter than the server's
    `Retry-After`. Whatever else a server answers is final, and so is a time-out: a slow server gets no
    faster by being asked twice.

    Args:
      address: the server's, as messages name it.
      model: the name under which it serves the model.
      version: the model's version; None for the latest.
      label: the label of a version, such as "stable", instead of its number.
      timeout: seconds to wait for an answer to one attempt.
      retries: how often a question is asked again at most.
      patience: seconds after the first attempt beyond which none is begun.

    Raises:
      ValueError: an argument is out of range.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        patience: float = 30.0,
    ):
        if not model:
            raise ValueError("model must be the name of a served model, got an empty one")
        if version is not None and label is not None:
            raise ValueError(f"give a version or a label, got {version} and {label!r}")
        if version is not None and not 0 <= version < 2**63:
            raise ValueError(f"version must be at least 0, got {version}")
        if not 0 < timeout <= _LONGEST_TIMEOUT:
            raise ValueError(
                f"timeout must be above 0 and at most {_LONGEST_TIMEOUT}, got {timeout}"
            )
        if retries < 0 or not patience >= 0:
            raise ValueError(f"retries and patience must be at least 0, got {retries}, {patience}")
        self.address = address
        self.model = model
        self.version = version
        self.label = label
        self.timeout = timeout
        self._retries = retries
        self._patience = patience
        self._closed = threading.Event()

    def close(self) -> None:
        """Close the connections that are kept between calls, and end all waiting for retries."""
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(
        self,
        images: Sequence[bytes],
        boxes: ArrayLike | None = None,
        signature: str = "serving_default",
    ) -> dict[str, np.ndarray]:
        """Return landmarks and covariances in pixels of the original images.

        More than 256 images, or 32 MiB of them, become several requests, one after the other.

        Args:
          images: N whole JPEG or PNG files.
          boxes: [N, 4] the part of each image to look at, (x0, y0, x1, y1) in its pixels; None, or
            zeros, for the whole of an image.
          signature: "serving_default", or "tta" for each image fused with its mirror image.

        Returns:
          `landmarks` [N, K, 2] float32 (x, y); `covariance` [N, K, 2, 2] float32 in square pixels;
          `valid` [N] bool, False where the server could not use an image and its box; and, from a
          model that has it, `precision_factor` [N, K, 2, 2] float32, the A of the density
          |A| / c exp(-rho(|A (y - mu)|)) in original pixels (eq. 3).

        Raises:
          ValueError: there is no image, or one is not bytes, or `boxes` is not [N, 4].
          ServerError: the server answered with an error, or not like a landmark model.
          ConnectionError: nobody answers there.
          TimeoutError: no answer came in time.
        """
        boxes = np.zeros((len(images), 4)) if boxes is None else np.asarray(boxes, np.float64)
        if boxes.shape != (len(images), 4):
            raise ValueError(
                f"boxes must be [{len(images)}, 4], one for each image; got {boxes.shape}"
            )
        if not len(images):
            raise ValueError("images must hold at least one, got none")
        if isinstance(images, bytes) or not all(isinstance(image, bytes) for image in images):
            raise ValueError("images must be a list of JPEG or PNG files, each as bytes")
        parts = []
        for start, end in _request_ranges([len(image) for image in images]):
            inputs = {"image_bytes": list(images[start:end]), "box": boxes[start:end]}
            outputs = self._call_with_retries(signature, inputs)
            parts.append(self._checked_prediction(outputs, end - start))
        shapes = {tuple((name, part[name].shape[1:]) for name in part) for part in parts}
        if len(shapes) > 1:  # another version of the model has taken over in between
            raise self._no_prediction()
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def metadata(self) -> dict[str, Any]:
        """Return what the model says of itself: the JSON object in its `metadata` signature.

        For a model without that signature, it holds the landmark set of as many landmarks as the
        model answers with (numbers for names where none is known), "huber" and delta 1.

        Returns:
          At least `landmark_set` with `names` [K], `edges` (pairs of indices) and `name`; `family`,
          `delta`, and `kappa`, with which covariance = kappa inv(A A); it is computed for a model that
          does not state it. `docs/serving.md` lists what else an exported model has.

        Raises:
          ServerError, ConnectionError, TimeoutError: as `predict`.
        """
        try:
            outputs = self._call_with_retries("metadata", {"query": [""]})
        except ServerError as error:
            if error.status != 400:
                raise
            outputs = None  # no such signature
        text = _first_text(outputs)
        if text is None:
            return self._guess_metadata()
        try:
            values = json.loads(text)
            return values | {"kappa": ModelMetadata.parse(values).kappa}
        except (ValueError, RecursionError) as error:
            fault = f"{self.model} at {self.address} describes itself wrongly: {error}"
            raise ServerError(fault, 200) from None

    def landmark_count(self, signature: str = "serving_default") -> int:
        """Return the number of landmarks K that a signature answers with, to a small grey image.

        Raises:
          ServerError, ConnectionError, TimeoutError: as `predict`; so this tells, before many pictures
            are sent, whether the server has the model and the signature.
        """
        image = io.BytesIO()
        Image.new("RGB", (32, 32), "grey").save(image, "JPEG")
        return self.predict([image.getvalue()], signature=signature)["landmarks"].shape[1]

    @abc.abstractmethod
    def _call(self, signature: str, inputs: Mapping[str, Sequence | np.ndarray]) -> Any:
        """Return the outputs of a signature for columns of strings, bytes or numbers; one attempt.

        A dict by output name; a single output may stand bare.
        """

    def _call_with_retries(
        self, signature: str, inputs: Mapping[str, Sequence | np.ndarray]
    ) -> Any:
        """Call until there is an answer, or a failure that will not pass."""
        last = time.monotonic() + self._patience
        attempt = 0
        while True:
            try:
                return self._call(signature, inputs)
            except (ServerError, ConnectionError) as error:
                if isinstance(error, ServerError) and error.status not in _TRANSIENT:
                    raise
                pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1)
                pause = max(pause, getattr(error, "retry_after", None) or 0)
                if attempt >= self._retries or time.monotonic() + pause > last:
                    raise
                if self._closed.wait(pause):
                    raise
            attempt += 1

    def _checked_prediction(self, outputs: Any, count: int) -> dict[str, np.ndarray]:
        """Return the arrays in a signature's outputs for `count` images, checked."""
        try:
            found = {
                name: np.asarray(outputs[name], np.float32) for name in ("landmarks", "covariance")
            }
            found["valid"] = np.asarray(outputs["valid"], np.bool_)
            found |= {
                name: np.asarray(outputs[name], kind)
                for name, kind in OPTIONAL.items()
                if name in outputs
            }
        except (KeyError, TypeError, ValueError, IndexError):
            raise self._no_prediction() from None
        points = (count, *found["landmarks"].shape[1:2])
        matrices = (*points, 2, 2)
        shapes = {"landmarks": (*points, 2), "valid": points[:1], "in_distribution": points[:1]}
        shapes["reliable"] = points
        if any(found[n].shape != shapes.get(n, matrices) for n in found):
            raise self._no_prediction()
        return found

    def _no_prediction(self) -> ServerError:
        outputs = "landmarks, covariance and valid"
        return ServerError(f"{self.model} at {self.address} answers, but not with {outputs}", 200)

    def _guess_metadata(self) -> dict[str, Any]:
        count = self.landmark_count()
        known = by_count(count)
        landmark_set = {
            "name": known.name if known else None,
            "names": list(known.names) if known else [str(k) for k in range(count)],
            "edges": [list(edge) for edge in known.edges] if known else [],
        }
        values = {"landmark_set": landmark_set, "family": "huber", "delta": 1.0}
        return values | {"kappa": kappa("huber", 1.0)}


def _request_ranges(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the range of images, first and past the last, of each request, from their sizes in bytes."""
    start, size = 0, 0
    for i, more in enumerate(sizes):
        if i > start and (i - start == MAX_ROWS or size + more > _MAX_BYTES):
            yield start, i
            start, size = i, 0
        size += more
    yield start, len(sizes)


def _first_text(outputs: Any) -> str | bytes | None:
    """Return the first row of the `json` output, which REST sends bare; None if there is none."""
    rows = outputs.get("json") if isinstance(outputs, Mapping) else outputs
    if isinstance(rows, (list, np.ndarray)) and len(rows) and isinstance(rows[0], (str, bytes)):
        return rows[0]
    return None
