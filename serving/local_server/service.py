"""What REST and gRPC share: finding a version, running it, and how much may be done at once."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from serving.errors import RequestError
from serving.local_server.metrics import Metrics

if TYPE_CHECKING:  # TensorFlow is imported when there is something to serve
    from serving.local_server.saved_model import SavedModel
    from serving.local_server.versions import ModelVersions

__all__ = ["Service"]


class Service:
    """The served model, with metrics and one bound for the requests of both APIs together.

    Args:
      versions: of the model; anything with the interface of `ModelVersions`.
      threads: how many requests are decoded and computed at the same time.
      max_waiting: how many more may wait for that; beyond, they are refused.
      timeout_ms: how long the model may take for one request; 0 for no limit.
      metrics: what counts requests and times models.

    Attributes:
      capacity: how many requests may be computing or waiting.
    """

    def __init__(
        self,
        versions: "ModelVersions",
        *,
        threads: int,
        max_waiting: int,
        timeout_ms: int,
        metrics: Metrics,
    ):
        self.versions = versions
        self.metrics = metrics
        self.capacity = threads + max_waiting
        self._threads = threads
        self._timeout_ms = timeout_ms
        self._computing = threading.Semaphore(threads)
        self._unfinished = 0
        self._lock = threading.Lock()
        metrics.watch(
            "local_server_requests_running",
            "Requests that are being computed",
            lambda: min(self._unfinished, threads),
        )
        metrics.watch(
            "local_server_requests_waiting",
            "Requests that wait for others to be computed",
            lambda: max(self._unfinished - threads, 0),
        )

    def find(
        self, name: str, version: int | None = None, label: str | None = None
    ) -> tuple[int, "SavedModel"]:
        """Return a version, by default the latest, with its number.

        Raises:
          RequestError: there is no such model or version, or a label is asked for.
        """
        if label is not None:
            raise RequestError(f"Unrecognized servable version label: {label}")
        found = self.versions.get(version) if name == self.versions.name else None
        if found is None:
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise RequestError(f"Servable not found for request: {asked}", status=404)
        return found

    def run(
        self, model: "SavedModel", signature: str, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return what `SavedModel.run` does, and note for the metrics how long the model took."""
        started = time.perf_counter()
        outputs = model.run(signature, inputs, timeout_ms=self._timeout_ms)
        latency = self.metrics.runtime_latency.labels(self.versions.name, "Predict", "TF1")
        latency.observe(1e6 * (time.perf_counter() - started))
        return outputs

    @contextlib.contextmanager
    def counted(self, name: str, api: str, entrypoint: str) -> Iterator[None]:
        """Count what the context does as a request and, if it is answered, note how long it took."""
        started, code = time.perf_counter(), "INTERNAL"
        name = name if name == self.versions.name else ""
        try:
            yield
            code = "OK"
            latency = self.metrics.request_latency.labels(name, api, entrypoint)
            latency.observe(1e6 * (time.perf_counter() - started))
        except RequestError as error:
            code = error.code
            raise
        finally:
            self.metrics.request_count.labels(name, code).inc()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn to compute, which lasts as long as the context.

        Raises:
          RequestError: too many compute or wait already, over whichever API they came.
        """
        with self._lock:
            if self._unfinished >= self.capacity:
                waiting = self.capacity - self._threads
                raise RequestError(
                    f"The server is busy: {self._threads} requests are being computed and {waiting} "
                    "wait; try again later",
                    status=503,
                )
            self._unfinished += 1
        try:
            with self._computing:
                yield
        finally:
            with self._lock:
                self._unfinished -= 1
