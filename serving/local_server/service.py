"""What REST and gRPC share: finding a version, running it, and how much may be done at once."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from serving.errors import RequestError
from serving.local_server.metrics import Metrics

if TYPE_CHECKING:  # TensorFlow is imported when there is something to serve
    from serving.local_server.saved_model import SavedModel
    from serving.local_server.versions import ModelVersions, VersionStatus

__all__ = ["Busy", "Service"]

Result = TypeVar("Result")


class Busy(RequestError):
    """A request for which there is neither a thread nor a place to wait."""


class Service:
    """The served models, with metrics and one bound for the requests of all APIs together.

    Args:
      models: what each model's name serves; anything with the interface of `ModelVersions`.
      threads: how many requests are decoded and computed at the same time.
      max_waiting: how many more may wait for that; beyond, they are refused.
      timeout_ms: how long a model may take for one request; 0 for no limit.
      metrics: what counts requests and times models.

    Attributes:
      capacity: how many requests may be computing or waiting.
    """

    def __init__(
        self,
        models: Mapping[str, "ModelVersions"],
        *,
        threads: int,
        max_waiting: int,
        timeout_ms: int,
        metrics: Metrics,
    ):
        self.models = models
        self.metrics = metrics
        self.capacity = threads + max_waiting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self._threads = threads
        self._timeout_ms = timeout_ms
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
          RequestError: there is no such model, version or label.
        """
        if label is not None:
            version = self._labelled(name, label)
        found = self.models[name].get(version) if name in self.models else None
        if found is None:
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise RequestError(f"Servable not found for request: {asked}", status=404)
        return found

    def statuses(
        self, name: str, version: int | None = None, label: str | None = None
    ) -> list["VersionStatus"]:
        """Return the state of a version, or of all, newest first.

        Raises:
          RequestError: there is no such model, version or label.
        """
        if label is not None:
            version = self._labelled(name, label)
        statuses = self.models[name].statuses() if name in self.models else []
        if version is not None:
            statuses = [status for status in statuses if status.version == version]
        if not statuses:
            which = "any versions" if version is None else f"version {version}"
            raise RequestError(f"Could not find {which} of model {name}", status=404)
        return statuses

    def run(
        self,
        name: str,
        model: "SavedModel",
        signature: str,
        inputs: Mapping[str, np.ndarray],
        timeout_ms: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Return a signature's outputs, and note for the metrics how long the model took.

        Args:
          name: the model's, for the metrics.
          model, signature, inputs: as for `SavedModel.run`.
          timeout_ms: where the client has less patience than the server.

        Raises:
          RequestError: as `SavedModel.run` does.
        """
        limits = [limit for limit in (self._timeout_ms, timeout_ms) if limit]
        started = time.perf_counter()
        outputs = model.run(signature, inputs, timeout_ms=min(limits, default=0))
        latency = self.metrics.runtime_latency.labels(name, "Predict", "TF1")
        latency.observe(1e6 * (time.perf_counter() - started))
        return outputs

    def count(self, name: str, code: str, api: str, entrypoint: str, seconds: float) -> None:
        """Count a request that has come to its end and, if it got an answer, note how long it took."""
        name = name if name in self.models else ""
        self.metrics.request_count.labels(name, code).inc()
        if code == "OK":
            self.metrics.request_latency.labels(name, api, entrypoint).observe(1e6 * seconds)

    def submit(self, function: Callable[..., Result], *args: object) -> "Future[Result]":
        """Have a function called in one of the threads when its turn comes; from any thread.

        Raises:
          Busy: too many are computed or wait already, over whichever API they came.
        """
        with self._lock:
            if self._unfinished >= self.capacity:
                waiting = self.capacity - self._threads
                raise Busy(
                    f"The server is busy: {self._threads} requests are being computed and {waiting} "
                    "wait; try again later",
                    status=503,
                )
            self._unfinished += 1
        future = self._pool.submit(function, *args)
        future.add_done_callback(self._finish)
        return future

    async def compute(self, function: Callable[..., Result], *args: object) -> Result:
        """Return what a function returns, called as by `submit`.

        Raises:
          Busy: as `submit`.
        """
        return await asyncio.wrap_future(self.submit(function, *args))

    def _finish(self, _: "Future[Any]") -> None:
        with self._lock:
            self._unfinished -= 1

    def _labelled(self, name: str, label: str) -> int:
        labels = self.models[name].labels if name in self.models else {}
        if label not in labels:
            raise RequestError(f"Unrecognized servable version label: {label}")
        return labels[label]
