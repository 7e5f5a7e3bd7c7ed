"""The versions of a model behind the local server, `BASE/1`, `BASE/2`, ..., as they come and go.

Those that the policy wants serve, and take over only when they are ready, their warm-up requests replayed.
"""

import gc
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.errors import RequestError
from serving.local_server.metrics import Metrics
from serving.local_server.model_config import VersionPolicy
from serving.local_server.saved_model import SavedModel, explain
from tfhuber.saved_model import versions, warmup

__all__ = ["ModelVersions", "VersionStatus"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version, in the words of TensorFlow Serving's model status.

    Attributes:
      version: its number.
      state: `LOADING`, `AVAILABLE`, or `END`: unloaded, or failed to load.
      error_code: `OK`, or the name of what went wrong.
      error_message: empty, or what went wrong.
    """

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


class ModelVersions:
    """The versions of a model under its base directory that serve; the highest is the latest.

    `poll` looks at the directory and loads what is new; call it again and again, from one thread at
    a time. Everything else answers at once, from any thread, while `poll` is loading. A version
    that cannot be loaded shows in `statuses` and leaves what serves in place; it is tried again
    when its files change.

    Args:
      name: the model's name, for messages.
      base_path: the directory whose numbered subdirectories are the versions.
      warm_up: whether a version replays its warm-up requests before it serves.
      metrics: what counts loads and warm-ups.

    Attributes:
      labels: versions by label.
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
        self.labels: Mapping[str, int] = {}
        self._policy = VersionPolicy()
        self._warm_up = warm_up
        self._metrics = metrics or Metrics()
        # Both are replaced, never changed in place, so that other threads always see a consistent one.
        self._loaded: dict[int, SavedModel] = {}
        self._statuses: dict[int, VersionStatus] = {}
        self._failed: dict[int, list] = {}
        self._warned = ""

    @property
    def serving(self) -> int | None:
        """The version that answers requests for the latest one; None while there is none."""
        return max(self._loaded, default=None)

    def configure(self, policy: VersionPolicy, labels: Mapping[str, int]) -> None:
        """Set which versions the next `poll` makes serve, and the labels from now on."""
        self._policy, self.labels = policy, labels

    def get(self, version: int | None = None) -> tuple[int, SavedModel] | None:
        """Return a version, by default the latest, with its number; None if it isn't loaded."""
        loaded = self._loaded
        number = max(loaded, default=None) if version is None else version
        return (number, loaded[number]) if number in loaded else None

    def statuses(self) -> list[VersionStatus]:
        """Return the state of every version that was ever seen, newest first."""
        statuses = self._statuses
        return [statuses[number] for number in sorted(statuses, reverse=True)]

    def poll(self) -> None:
        """Bring what serves in line with the directory: load what is wanted, drop what is not.

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
        wanted = self._policy.wanted(found)
        self._warn(
            ""
            if wanted
            else f"no version of {self.name} to serve in {self.base_path}: waiting for a numbered "
            f"directory such as {self.base_path / '1'}"
        )
        for version in sorted(wanted - self._loaded.keys(), reverse=True):
            self._load(version, found[version])
        if not wanted or wanted & self._loaded.keys():
            self._keep_only(wanted)

    def _load(self, version: int, directory: Path) -> None:
        """Load a version beside those that are loaded, if it can be."""
        files = _fingerprint(directory)
        if self._failed.get(version) == files:
            return
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
            return
        self._metrics.load_attempt_count.labels(str(directory), "success").inc()
        self._metrics.load_latency.labels(str(directory)).inc(_microseconds(started))
        self._loaded = {**self._loaded, version: model}
        self._set_status(VersionStatus(version, "AVAILABLE"))

    def _replay(self, model: SavedModel, directory: Path) -> None:
        """Run a version's warm-up requests; as in TensorFlow Serving, one that fails is fatal."""
        started, replayed = time.perf_counter(), False
        for signature, inputs in warmup.requests(directory):
            specs = model.input_specs(signature)
            if inputs.keys() != specs.keys():
                raise RequestError(
                    f"a warm-up request for {signature} has the inputs {', '.join(sorted(inputs))}, "
                    f"not {', '.join(specs)}"
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

    def _keep_only(self, versions: set[int]) -> None:
        dropped = self._loaded.keys() - versions
        if not dropped:
            return
        self._loaded = {n: model for n, model in self._loaded.items() if n in versions}
        for number in dropped:
            self._set_status(VersionStatus(number, "END"))
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
