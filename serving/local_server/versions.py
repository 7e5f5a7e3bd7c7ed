"""The versions of a model behind the local server, `BASE/1`, `BASE/2`, ..., as they come and go.

The highest number serves, and takes over only when it is ready, its warm-up requests replayed.
"""

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving.errors import RequestError
from serving.local_server.metrics import Metrics
from serving.local_server.saved_model import SavedModel, explain
from tfhuber.saved_model import versions, warmup

__all__ = ["ModelVersions", "VersionStatus"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version, in the words of TensorFlow Serving's model status.

    That is `LOADING`, `AVAILABLE`, or `END`: unloaded, or failed to load.
    """

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


class ModelVersions:
    """The versions of a model under its base directory, of which the highest serves.

    `poll` looks at the directory and loads what is new; call it again and again, from one thread at
    a time. Everything else answers at once, from any thread, while `poll` is loading. A version
    that cannot be loaded shows in `statuses` and leaves what serves in place; it is tried again
    when its files change. With `warm_up`, a version replays its warm-up requests before it serves.
    """

    def __init__(
        self,
        name: str,
        base_path: Path | str,
        *,
        warm_up: bool = True,
        metrics: Metrics | None = None,
    ):
        self.name = name
        self.base_path = Path(base_path)
        self._warm_up = warm_up
        self._metrics = metrics or Metrics()
        # Both are replaced, never changed in place, so that other threads always see a consistent one.
        self._loaded: tuple[int, SavedModel] | None = None
        self._statuses: dict[int, VersionStatus] = {}
        self._failed: dict[int, list] = {}
        self._warned = ""

    @property
    def serving(self) -> int | None:
        """The version that answers requests; None while there is none."""
        loaded = self._loaded
        return loaded[0] if loaded else None

    def get(self, version: int | None = None) -> tuple[int, SavedModel] | None:
        """Return a version, by default the latest, with its number; None if it isn't loaded."""
        loaded = self._loaded
        return loaded if loaded and version in (None, loaded[0]) else None

    def statuses(self) -> list[VersionStatus]:
        """Return the state of every version that was ever seen, newest first."""
        statuses = self._statuses
        return [statuses[number] for number in sorted(statuses, reverse=True)]

    def poll(self) -> None:
        """Bring what serves in line with the directory.

        While the directory cannot be read, all stays as it is.
        """
        try:
            found = versions.numbered(self.base_path)
        except OSError as error:
            if self._loaded:
                what = f"Could not find base path {self.base_path} of {self.name}"
                self._warn(f"{what}, so what is loaded stays: {error}", logger.error)
                return
            found = {}
        if not found:
            self._warn(
                f"no version of {self.name} to serve in {self.base_path}: waiting for a numbered "
                f"directory such as {self.base_path / '1'}"
            )
            self._replace(None)
            return
        self._warn("")
        newest = max(found)
        if newest != self.serving and (model := self._load(newest, found[newest])):
            self._replace((newest, model))

    def _load(self, version: int, directory: Path) -> SavedModel | None:
        """Return a version, loaded beside the one that serves; None if it cannot be."""
        files = _fingerprint(directory)
        if self._failed.get(version) == files:
            return None
        self._set_status(VersionStatus(version, "LOADING"))
        started = time.perf_counter()
        try:
            model = SavedModel(directory)
            if self._warm_up:
                self._replay(model, directory)
        # A broken model may raise anything, and must not stop the server.
        except Exception as error:
            self._failed[version] = files
            self._metrics.load_attempt_count.labels(str(directory), "fail").inc()
            code, message = explain(error)
            self._set_status(VersionStatus(version, "END", code, message))
            logger.error("version %d of %s cannot be loaded: %s", version, self.name, message)
            return None
        self._metrics.load_attempt_count.labels(str(directory), "success").inc()
        self._metrics.load_latency.labels(str(directory)).inc(_microseconds(started))
        return model

    def _replay(self, model: SavedModel, directory: Path) -> None:
        """Run a version's warm-up requests; as in TensorFlow Serving, one that fails is fatal."""
        started, replayed = time.perf_counter(), False
        for signature, inputs in warmup.requests(directory):
            types = model.input_types(signature)
            if inputs.keys() != types.keys():
                raise RequestError(
                    f"a warm-up request for {signature} has the inputs {', '.join(sorted(inputs))}, "
                    f"not {', '.join(types)}"
                )
            model.run(signature, inputs)
            replayed = True
        if replayed:
            latency = self._metrics.warmup_latency.labels(str(directory), "OK")
            latency.observe(_microseconds(started))

    def _warn(self, message: str, log: Callable[[str], None] = logger.warning) -> None:
        """Log what is wrong when it begins, and not at every look."""
        if message and message != self._warned:
            log(message)
        self._warned = message

    def _replace(self, loaded: tuple[int, SavedModel] | None) -> None:
        """Have a version serve, or none; the old one goes when its last request is answered."""
        old, self._loaded = self.serving, loaded
        if loaded is not None:
            self._set_status(VersionStatus(loaded[0], "AVAILABLE"))
        if old is not None:
            self._set_status(VersionStatus(old, "END"))
            gc.collect()  # graphs hold reference cycles

    def _set_status(self, status: VersionStatus) -> None:
        self._statuses = {**self._statuses, status.version: status}


def _fingerprint(directory: Path) -> list:
    """Return a value that is another when any file of a version has changed."""
    try:
        files = [(str(path), path.stat()) for path in directory.rglob("*")]
    except OSError:
        return []
    return sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in files)


def _microseconds(since: float) -> float:
    return 1e6 * (time.perf_counter() - since)
