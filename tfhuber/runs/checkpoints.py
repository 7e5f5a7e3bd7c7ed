"""Checkpoint files: the last good one stays, and is found if a newer one cannot be read."""

import contextlib
import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from tfhuber.console.files import read_json, reason, write_json

__all__ = ["Checkpoints", "restore_newest", "tidy", "writing"]

_LOGGER = logging.getLogger(__name__)


class Checkpoints:
    """The latest and the best checkpoint of a run.

    `latest/` holds model and optimiser; `best/` holds the model of the best evaluation so far, whose
    step and score are in `best.json`.

    Attributes:
      best_step: the step of the best evaluation, or None before the first.

    Args:
      run: the run's directory.
      model: the model to evaluate.
      optimizer: whatever else training needs to go on.

    Raises:
      ValueError: if `best.json` is damaged.
      OSError: if the directories cannot be made.
    """

    def __init__(
        self,
        run: Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer | tf.train.Checkpoint,
    ):
        everything = tf.train.Checkpoint(model=model, optimizer=optimizer)
        self._latest = _manager(everything, run / "latest", max_to_keep=2)
        self._best = _manager(tf.train.Checkpoint(model=model), run / "best", max_to_keep=1)
        self._record = run / "best.json"
        self.best_step, self._best_score = _read_record(self._record)

    def restore(self) -> int | None:
        """Restore the latest checkpoint and return its step; None if there is no checkpoint.

        Raises:
          ValueError: if there are some, and none can be read.
        """
        return restore_newest(self._latest.checkpoint, self._latest.directory)

    def save(self, step: int) -> None:
        """Write the latest checkpoint; OSError if that fails, and then the one before it stays."""
        _save(self._latest, step)

    def keep_best(self, step: int, score: float) -> None:
        """Write the best checkpoint if it is the first, or its score is higher than the recorded one.

        Raises:
          OSError: if that fails.
        """
        score = -math.inf if math.isnan(score) else score
        if self.best_step is not None and self._best_score >= score:
            return
        _save(self._best, step)
        write_json(self._record, {"step": step, "score": score})
        self.best_step, self._best_score = step, score


def tidy(run: Path) -> None:
    """Remove what a killed process left of checkpoints, and list those that are whole anew.

    Only one process may do so, before any process makes `Checkpoints`.

    Raises:
      OSError: if a file cannot be removed or written.
    """
    for directory in (run / "latest", run / "best"):
        if not directory.is_dir():
            continue
        for unfinished in directory.glob("ckpt-*_temp"):
            shutil.rmtree(unfinished)
        whole = {str(index.with_suffix("")): index.stat().st_mtime for index in _indices(directory)}
        for data in directory.glob("ckpt-*.data-*"):
            if str(data.with_suffix("")) not in whole:
                data.unlink()
        # TensorFlow deletes only those that its list names with a time, and cannot read a damaged list.
        if whole:
            paths, times = list(whole), list(whole.values())
            with writing(f"the list of checkpoints in {directory}"):
                tf.compat.v1.train.update_checkpoint_state(
                    str(directory), paths[-1], paths, all_model_checkpoint_timestamps=times
                )
        else:
            (directory / "checkpoint").unlink(missing_ok=True)


def restore_newest(checkpoint: tf.train.Checkpoint, directory: str | Path) -> int | None:
    """Restore the newest checkpoint in a directory and return its step; None if there is no checkpoint.

    One that is damaged is named in a warning, and the one before it is restored instead.

    Raises:
      ValueError: if none can be read: all are damaged, or of another model.
    """
    faults = []
    for index in reversed(_indices(Path(directory))):
        prefix = index.with_suffix("")
        try:
            status = checkpoint.restore(str(prefix))
            status.assert_existing_objects_matched()
        except Exception as error:  # readers and variables each raise their own
            faults.append(f"checkpoint {prefix} is damaged or of another model ({reason(error)})")
            continue
        status.expect_partial()
        for fault in faults:
            _LOGGER.warning("%s; going on from %s", fault, prefix)
        return _step(index)
    if faults:
        raise ValueError(f"{faults[0]}, and so is every one before it; delete {directory}")
    return None


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Raise OSError, in one line, where TensorFlow cannot write a file."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(
            f"cannot write {what} ({reason(error)}); once that is mended, the same command goes on "
            "from the last checkpoint"
        ) from error


def _indices(directory: Path) -> list[Path]:
    """Return the index files of the checkpoints in a directory, in the order of their steps."""
    # TensorFlow writes the index last and deletes it first, so one that is there is whole.
    indices = [path for path in directory.glob("ckpt-*.index") if path.stem[5:].isdecimal()]
    return sorted(indices, key=_step)


def _step(index: Path) -> int:
    """Return the step of a checkpoint, which its name `ckpt-STEP.index` says."""
    return int(index.stem[5:])


def _manager(
    checkpoint: tf.train.Checkpoint, directory: Path, max_to_keep: int
) -> tf.train.CheckpointManager:
    directory.mkdir(parents=True, exist_ok=True)
    with writing(f"checkpoints to {directory}"):
        return tf.train.CheckpointManager(checkpoint, str(directory), max_to_keep)


def _save(manager: tf.train.CheckpointManager, step: int) -> None:
    directory = Path(manager.directory)
    if not directory.is_dir():  # TensorFlow would make it again, and nothing else of the run
        raise OSError(f"{directory} is gone: somebody deleted the run while it was training")
    with writing(f"the checkpoint of step {step} to {directory}"):
        manager.save(checkpoint_number=step)


def _read_record(path: Path) -> tuple[int | None, float]:
    """Return step and score in `best.json`; None and minus infinity if there is no such file."""
    if not path.is_file():
        return None, -math.inf
    try:
        values = read_json(path)
        return int(values["step"]), float(values["score"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is damaged; delete it, and the next best is kept") from error
