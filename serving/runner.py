"""SavedModels behind the local server: running one version, and following a directory of versions.

`SavedModel` loads and runs a version as TensorFlow Serving's C++ does, through the v1 loader and a
session, so that a model which loads here loads there. `ModelVersions` follows a directory
`BASE/1`, `BASE/2`, ...: the highest number serves, and takes over only when it is ready.
"""

import gc
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import error_codes_pb2

from serving.codec import RequestError, TensorSpec

__all__ = ["ModelVersions", "SavedModel", "VersionStatus"]

logger = logging.getLogger(__name__)

# HTTP statuses of TensorFlow's error codes; the others are 500.
_HTTP_STATUS = {
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}


class SavedModel:
    """One version of a model, loaded into a session of its own.

    The session is closed when the last reference goes, so requests that are still running when a
    newer version takes over end normally.

    Args:
      directory: the version's directory, the one with `saved_model.pb`.

    Raises:
      Exception: whatever TensorFlow raises for a model that it cannot load.
    """

    def __init__(self, directory: Path | str):
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(directory))
        self._signatures = dict(meta_graph.signature_def)

    def input_specs(self, signature: str) -> dict[str, TensorSpec]:
        """Returns the inputs of a signature by name.

        Raises:
          RequestError: the model has no such signature.
        """
        if signature not in self._signatures:
            raise RequestError(f'Serving signature name: "{signature}" not found in signature def')
        inputs = self._signatures[signature].inputs
        return {name: _spec(inputs[name]) for name in sorted(inputs)}

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], *, timeout_ms: int = 0
    ) -> dict[str, np.ndarray]:
        """Returns a signature's outputs by name. May be called from several threads.

        Args:
          signature: a name for which `input_specs` answers.
          inputs: one array for each input, as `serving.codec.decode_inputs` makes them.
          timeout_ms: how long it may take; 0 for no limit.

        Raises:
          RequestError: the model could not compute these inputs, or not in time; the status is the
            one with which TensorFlow Serving answers.
        """
        definition = self._signatures[signature]
        feeds = {definition.inputs[name].name: array for name, array in inputs.items()}
        fetches = {name: definition.outputs[name].name for name in sorted(definition.outputs)}
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms)
        try:
            return self._session.run(fetches, feeds, options=options)
        except tf.errors.OpError as error:
            code, message = _explain(error)
            raise RequestError(message, status=_HTTP_STATUS.get(code, 500)) from error

    def describe_signatures(self) -> dict:
        """Returns all signatures as the JSON object of a `SignatureDefMap` message."""
        return {
            name: json_format.MessageToDict(
                definition,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, definition in sorted(self._signatures.items())
        }


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
    """The versions of a model under its base directory, the highest of which serves.

    `poll` looks at the directory and loads what is new; call it again and again, from one thread at
    a time. Everything else answers at once, from any thread, while `poll` is loading. A version
    that cannot be loaded shows in `statuses` and leaves the serving one in place; it is tried again
    when its files change.

    Args:
      name: the model's name, for messages.
      base_path: the directory whose numbered subdirectories are the versions.
    """

    def __init__(self, name: str, base_path: Path | str):
        self.name = name
        self.base_path = Path(base_path)
        # Both are replaced, never changed, so that other threads always see a whole one.
        self._loaded: dict[int, SavedModel] = {}
        self._statuses: dict[int, VersionStatus] = {}
        self._failed: dict[int, list] = {}
        self._warned_empty = False

    @property
    def serving(self) -> int | None:
        """The version that answers requests for the latest one; None while there is none."""
        return max(self._loaded, default=None)

    def get(self, version: int | None = None) -> tuple[int, SavedModel] | None:
        """Returns a version, by default the latest, with its number; None if it isn't loaded."""
        loaded = self._loaded
        number = max(loaded, default=None) if version is None else version
        return (number, loaded[number]) if number in loaded else None

    def statuses(self) -> list[VersionStatus]:
        """Returns the state of every version that was ever seen, newest first."""
        statuses = self._statuses
        return [statuses[number] for number in sorted(statuses, reverse=True)]

    def poll(self) -> None:
        """Brings what serves in line with the directory: loads a newer version, drops the older."""
        found = self._find_versions()
        if not found and not self._warned_empty:
            logger.warning(
                "no version of %s in %s: waiting for a numbered directory such as %s",
                self.name,
                self.base_path,
                self.base_path / "1",
            )
        self._warned_empty = not found
        newest = max(found, default=None)
        if newest is None or newest in self._loaded or self._load(newest, found[newest]):
            self._keep_only(newest)

    def _load(self, version: int, directory: Path) -> bool:
        """Loads a version beside those that are loaded; returns whether it could."""
        files = _fingerprint(directory)
        if self._failed.get(version) == files:
            return False
        self._set_status(VersionStatus(version, "LOADING"))
        try:
            model = SavedModel(directory)
        except (
            Exception
        ) as error:  # a broken model may raise anything, and must not stop the server
            self._failed[version] = files
            code, message = _explain(error)
            self._set_status(VersionStatus(version, "END", code, message))
            logger.error("version %d of %s cannot be loaded: %s", version, self.name, message)
            return False
        self._loaded = {**self._loaded, version: model}
        self._set_status(VersionStatus(version, "AVAILABLE"))
        return True

    def _find_versions(self) -> dict[int, Path]:
        try:
            children = list(self.base_path.iterdir())
        except OSError:
            return {}
        return {
            int(child.name): child
            for child in children
            if child.name.isascii() and child.name.isdecimal() and child.is_dir()
        }

    def _keep_only(self, version: int | None) -> None:
        dropped = self._loaded.keys() - {version}
        if not dropped:
            return
        self._loaded = {number: self._loaded[number] for number in self._loaded.keys() & {version}}
        for number in dropped:
            self._set_status(VersionStatus(number, "END"))
        gc.collect()  # graphs hold reference cycles

    def _set_status(self, status: VersionStatus) -> None:
        self._statuses = {**self._statuses, status.version: status}


def _spec(info: tf.compat.v1.TensorInfo) -> TensorSpec:
    shape = tf.TensorShape(info.tensor_shape)
    dims = None if shape.rank is None else tuple(shape.as_list())
    return TensorSpec(tf.as_dtype(info.dtype).name, dims)


def _fingerprint(directory: Path) -> list:
    """Returns what changes when any file of a version does."""
    try:
        files = [(str(path), path.stat()) for path in directory.rglob("*")]
    except OSError:
        return []
    return sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in files)


def _explain(error: Exception) -> tuple[str, str]:
    """Returns the name of an error's code and its message on one line."""
    if isinstance(error, tf.errors.OpError):
        # Python's session puts a heading before the runtime's message and a traceback after it.
        message = error.message.removeprefix("Graph execution error:").strip().split("\n")[0]
        return error_codes_pb2.Code.Name(error.error_code), message
    code = "NOT_FOUND" if isinstance(error, OSError) else "UNKNOWN"
    return code, " ".join(str(error).split()) or type(error).__name__
