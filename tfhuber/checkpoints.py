"""Checkpoint files: the last good one stays, and is found if a newer one cannot be read."""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from tfhuber.files import read_json, reason, write_json

if TYPE_CHECKING:
    from tfhuber.loop import State

__all__ = ["Checkpoints", "restore_newest"]

_LOGGER = logging.getLogger(__name__)


class Checkpoints:
    """The latest and the best checkpoint of a run.

    `latest/` holds model and optimiser; `best/` the model of the best evaluation so far, with its
    score beside it in `best.json`.

    Raises:
      ValueError: if TensorFlow's or our own record of what is there is damaged.
    """

    def __init__(self, run: Path, state: "State"):
        everything = tf.train.Checkpoint(model=state.model, optimizer=state.optimizer)
        self._latest = _manager(everything, run / "latest", max_to_keep=2)
        self._best = _manager(tf.train.Checkpoint(model=state.model), run / "best", max_to_keep=1)
        self._record = run / "best.json"
        self._best_score = _read_score(self._record)

    def restore(self) -> bool:
        """Puts the latest checkpoint's values into the state; false if there is none.

        Raises:
          ValueError: if there are some, and none can be read.
        """
        return restore_newest(self._latest.checkpoint, self._latest.directory)

    def save(self, step: int) -> None:
        """Writes the latest checkpoint; OSError if that fails, and then the one before it stays."""
        _save(self._latest, step)

    def keep_best(self, step: int, score: float) -> None:
        """Writes the best checkpoint if this score is higher than the one on record.

        Raises:
          OSError: if that fails.
        """
        if self._best_score >= score:
            return
        _save(self._best, step)
        write_json(self._record, {"step": step, "score": score})
        self._best_score = score


def restore_newest(checkpoint: tf.train.Checkpoint, directory: str | Path) -> bool:
    """Reads the newest checkpoint in a directory that can be read into a model; false if there is none.

    One that is damaged is named in a warning, and the one before it is read instead.

    Raises:
      ValueError: if none can be read: all are damaged, or of another model.
    """
    # TensorFlow writes the index last and deletes it first, so one that is there is whole.
    indices = [p for p in Path(directory).glob("ckpt-*.index") if p.stem[5:].isdecimal()]
    faults = []
    for index in sorted(indices, key=lambda p: int(p.stem[5:]), reverse=True):
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
        return True
    if faults:
        raise ValueError(f"{faults[0]}, and so is every one before it; delete {directory}")
    return False


def _manager(checkpoint, directory: Path, max_to_keep: int) -> tf.train.CheckpointManager:
    for unfinished in directory.glob("ckpt-*_temp"):
        shutil.rmtree(unfinished)
    try:
        return tf.train.CheckpointManager(checkpoint, str(directory), max_to_keep)
    except ValueError as error:
        raise ValueError(
            f"{directory / 'checkpoint'} is damaged; delete it, and the checkpoints beside it will be found"
        ) from error


def _save(manager: tf.train.CheckpointManager, step: int) -> None:
    try:
        manager.save(checkpoint_number=step)
    except tf.errors.OpError as error:
        raise OSError(
            f"cannot write the checkpoint of step {step} to {manager.directory} "
            f"({reason(error)}); once that is mended, the same command goes on from the last one"
        ) from error


def _read_score(path: Path) -> float:
    """The score in `best.json`, minus infinity if there is no such file."""
    if not path.is_file():
        return -float("inf")
    try:
        return float(read_json(path)["score"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged; delete it, and the next best is kept") from error
