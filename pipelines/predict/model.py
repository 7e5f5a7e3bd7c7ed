"""The exported model: found by the launcher, loaded once by each worker process, and asked by batches."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from apache_beam.io.filesystems import FileSystems

from pipelines.storage import digest, is_local, names, open_file
from tfhuber.console.cli import import_tensorflow
from tfhuber.console.files import reason
from tfhuber.console.lazy import lazy_module
from tfhuber.saved_model.metadata import METADATA, ModelMetadata
from tfhuber.saved_model.versions import find_version

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = lazy_module("tensorflow")  # Neither the launcher nor `--help` needs it.

__all__ = ["ExportedModel", "LoadedModel"]

# In an object store, the files of versions that are whole.
_VERSION = re.compile(r"(?:(\d{1,19})/)?saved_model\.pb")


@dataclass(frozen=True)
class ExportedModel:
    """What `tfhuber.export` wrote, on any of Beam's file systems.

    Attributes:
      directory: of the SavedModel itself.
      signature: the one that is asked, which takes image files.
      landmarks: how many it predicts.
      sha256: of all its files with their names.
    """

    directory: str
    signature: str
    landmarks: int
    sha256: str

    @classmethod
    def find(cls, path: str, signature: str) -> "ExportedModel":
        """Return the model at a path: itself, or its version with the highest number.

        Raises:
          ValueError: there is none, it lacks its metadata, or it has no such signature.
          OSError: it cannot be read.
        """
        directory = str(find_version(path)) if is_local(path) else _newest_version(path)
        try:
            with open_file(FileSystems.join(directory, METADATA)) as file:
                metadata = ModelMetadata.parse(json.loads(file.read()))
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{directory}: its {METADATA} cannot be read ({error}); export the model again"
            ) from None
        signature = metadata.image_signature(tta=signature == "tta")
        return cls(directory, signature, len(metadata.names), _sha256(directory))

    @property
    def version(self) -> str:
        """The name of its directory, which is the version's number in an export of several."""
        return os.path.basename(self.directory.rstrip("/"))

    def load(self) -> "LoadedModel":
        """Load it with TensorFlow into this process.

        Raises:
          OSError: it is not the one that the launcher found, or cannot be loaded.
        """
        with ExitStack() as stack:
            directory = self.directory
            if not is_local(directory):
                directory = stack.enter_context(tempfile.TemporaryDirectory())
                _download(self.directory, directory)
            if _sha256(directory) != self.sha256:
                raise OSError(f"{self.directory} is not the model that the launcher found there")
            import_tensorflow()
            # One thread for each worker: how a sum is split among threads may decide its last bit.
            with suppress(
                RuntimeError
            ):  # TensorFlow runs in this process already, as others set it.
                tf.config.threading.set_intra_op_parallelism_threads(1)
            try:
                return LoadedModel(directory, self.signature, self.landmarks)
            except (tf.errors.OpError, OSError, ValueError, AttributeError) as error:
                raise OSError(
                    f"{self.directory} cannot be loaded: {reason(error)}; export the model again"
                ) from error


class LoadedModel:
    """A signature that takes image files, ready to be asked.

    Attributes:
      landmarks: how many it predicts.
      arrays: what it answers with for a picture, and its shape, in the order of a line of JSON.

    Args:
      directory: the SavedModel, on this machine; no longer needed afterwards.
      signature: the name.
      landmarks: as above.
    """

    def __init__(self, directory: str, signature: str, landmarks: int):
        self._model = tf.saved_model.load(directory)  # Its variables live as long as this does.
        if signature not in self._model.signatures:
            raise ValueError(f"it has no signature {signature!r}")
        self._predict = self._model.signatures[signature]
        self.landmarks = landmarks
        shapes = {
            "landmarks": (landmarks, 2),
            "covariance": (landmarks, 2, 2),
            "precision_factor": (landmarks, 2, 2),
            "reliable": (landmarks,),
            "in_distribution": (),
        }
        outputs = self._predict.structured_outputs
        self.arrays = {name: shape for name, shape in shapes.items() if name in outputs}

    def predict(self, files: Sequence[bytes], boxes: np.ndarray) -> dict[str, np.ndarray]:
        """Return the signature's outputs by name, in pixels of the files' images.

        Args:
          files: N whole JPEG or PNG files.
          boxes: [N, 4] in their pixels; zeros for all of an image.

        Raises:
          OSError: TensorFlow cannot compute; what a file holds is no reason for that.
        """
        try:
            outputs = self._predict(
                image_bytes=tf.constant(list(files), tf.string),
                box=tf.constant(boxes, tf.float32),
            )
            return {name: value.numpy() for name, value in outputs.items()}
        except tf.errors.OpError as error:
            raise OSError(f"the model has failed: {reason(error)}") from error


def _newest_version(path: str) -> str:
    """Return the directory of an object store's newest version, as `find_version` does for a disk's."""
    found = [match for match in map(_VERSION.fullmatch, names(path, deep=True)) if match]
    numbers = {int(match[1]): match[1] for match in found if match[1]}
    if any(not match[1] for match in found):
        return path
    if not numbers:
        raise ValueError(f"{path} holds no exported model; copy one there with all its folders")
    return FileSystems.join(path, numbers[max(numbers)])


def _files(directory: str) -> list[str]:
    """Return the paths of all files below a directory, relative to it, sorted."""
    if not is_local(directory):
        return sorted(names(directory, deep=True))
    root = Path(directory)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def _sha256(directory: str) -> str:
    """Return a checksum of all files below a directory, and of their names."""
    sums = {
        name: digest(FileSystems.join(directory, name), hashlib.sha256())
        for name in _files(directory)
    }
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def _download(directory: str, target: str) -> None:
    """Copy all files below an object store's directory to a folder of this machine."""
    for name in _files(directory):
        path = Path(target, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_file(FileSystems.join(directory, name)) as file:
            path.write_bytes(file.read())
