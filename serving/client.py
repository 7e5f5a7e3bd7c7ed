"""Asks a model server for the landmarks of a photograph over REST, and draws them on it.

    python -m serving.client photo.jpg --box 40,30,210,220 --output overlay.png

The server is TensorFlow Serving or `serving.local_server`; TensorFlow itself is not needed here.
Positions are pixels of the image as it is stored: TensorFlow ignores an EXIF orientation, so a
photograph that viewers turn upright is given to the model, and drawn, unturned.
"""

import argparse
import base64
import json
from collections.abc import Sequence

import httpx
import numpy as np

from tfhuber import pictures
from tfhuber.cli import run_main
from tfhuber.landmarks import by_count
from tfhuber.savedmodel import Facts

__all__ = ["Client", "ServerError", "main"]


class ServerError(ValueError):
    """A server's answer that is no prediction.

    Attributes:
      status: the HTTP status.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Client:
    """A landmark model behind TensorFlow Serving's REST API; a context manager, or call `close`.

    Example:
      >>> with Client("http://localhost:8501", "wflw") as client:
      ...     found = client.predict([Path("photo.jpg").read_bytes()])
      >>> found["landmarks"].shape
      (1, 98, 2)

    Args:
      url: where the server is, without a path.
      model: the name under which it serves the model.
      timeout: seconds to wait for an answer.
    """

    def __init__(
        self, url: str = "http://localhost:8501", model: str = "wflw", *, timeout: float = 60.0
    ):
        self.url = url.rstrip("/")
        self.model = model
        try:
            target = httpx.URL(f"{self.url}/v1/models/{model}:predict")
        except httpx.InvalidURL as error:
            raise ValueError(f"{url} is no URL: {error}") from None
        if target.scheme not in ("http", "https") or not target.host:
            raise ValueError(f"{url} is no URL such as http://localhost:8501")
        self._target = target
        self._http = httpx.Client(timeout=httpx.Timeout(timeout, connect=5.0))

    def close(self) -> None:
        """Closes the connections that are kept between calls."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(
        self,
        images: Sequence[bytes],
        boxes: np.ndarray | Sequence | None = None,
        signature: str = "serving_default",
    ) -> dict[str, np.ndarray]:
        """Returns landmarks and covariances in pixels of the original images.

        Args:
          images: N whole JPEG or PNG files.
          boxes: [N, 4] the part of each image to look at, (x0, y0, x1, y1) in its pixels; None, or
            zeros, for the whole of an image.
          signature: "serving_default", or "tta" for each image fused with its mirror image.

        Returns:
          `landmarks` [N, K, 2] float32 (x, y); `covariance` [N, K, 2, 2] float32 in square pixels;
          `valid` [N] bool, False where the server could not decode an image.

        Raises:
          ValueError: if `boxes` is not [N, 4].
          ServerError: the server answered with an error, or not like a landmark model.
          ConnectionError: nobody answers at the URL.
          TimeoutError: no answer came in time.
        """
        boxes = np.zeros((len(images), 4)) if boxes is None else np.asarray(boxes, np.float64)
        if boxes.shape != (len(images), 4):
            raise ValueError(
                f"boxes must be [{len(images)}, 4], one for each image; got {boxes.shape}"
            )
        encoded = [{"b64": base64.b64encode(image).decode()} for image in images]
        inputs = {"image_bytes": encoded, "box": boxes.tolist()}
        outputs = self._post({"signature_name": signature, "inputs": inputs})
        fault = ServerError(
            f"{self.model} at {self.url} answers, but not with landmarks, covariance and valid", 200
        )
        try:
            found = {
                "landmarks": np.asarray(outputs["landmarks"], np.float32),
                "covariance": np.asarray(outputs["covariance"], np.float32),
                "valid": np.asarray(outputs["valid"], bool),
            }
        except (KeyError, TypeError, ValueError):
            raise fault from None
        points = (len(images), *found["landmarks"].shape[1:2])
        shapes = {"landmarks": (*points, 2), "covariance": (*points, 2, 2), "valid": points[:1]}
        if any(array.shape != shapes[name] for name, array in found.items()):
            raise fault
        return found

    def _post(self, body: dict) -> object:
        try:
            response = self._http.post(self._target, content=json.dumps(body))
        except httpx.TimeoutException as error:
            raise TimeoutError(f"no answer from {self.url} in time: {error}") from None
        except (httpx.TransportError, UnicodeError) as error:  # a host's name may be unwritable
            raise ConnectionError(
                f"no server at {self.url} ({error}); start one with "
                f"`python -m serving.local_server --model_name={self.model} --model_base_path=DIR "
                f"--rest_api_port={self._target.port or 80}`"
            ) from None
        try:
            answer = response.json()
            reason = answer.get("error")
        except (ValueError, AttributeError, RecursionError):
            answer, reason = {}, None
        if response.is_error or "outputs" not in answer:
            nothing = response.reason_phrase if response.is_error else "an answer without outputs"
            reason = reason or nothing
            raise ServerError(
                f"{self.url} answered {response.status_code}: {reason}", response.status_code
            )
        return answer["outputs"]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.client",
        description="Finds the landmarks of a photograph with a model server, and draws them.",
    )
    parser.add_argument(
        "--url",
        default="http://localhost:8501",
        help="TensorFlow Serving's or the local server's (default: %(default)s)",
    )
    parser.add_argument(
        "--model", default="wflw", help="the name it is served under (default: %(default)s)"
    )
    parser.add_argument(
        "--tta", action="store_true", help="fuse with the prediction for the mirror image"
    )
    arguments, image_bytes, image, box = pictures.read_arguments(parser)
    with Client(arguments.url, arguments.model) as client:
        signature = "tta" if arguments.tta else "serving_default"
        found = client.predict([image_bytes], None if box is None else [box], signature)
    if not found["valid"].all():
        fault = f"the server could not decode {arguments.image}"
        if box is not None:
            fault += ", or --box is too small or too far away"
        raise ValueError(fault)
    landmarks, covariance = found["landmarks"][0], found["covariance"][0]
    # REST carries numbers alone: names and edges are those of the landmark set of that size.
    known = by_count(len(landmarks))
    names = list(known.names) if known else [str(i) for i in range(len(landmarks))]
    facts = Facts(names, list(known.edges) if known else [], delta=1.0)
    print(pictures.write_result(arguments, image, landmarks, covariance, box, facts))
    return 0


if __name__ == "__main__":
    run_main(main)
