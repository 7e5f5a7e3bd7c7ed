"""The directory of a run before its first step, and its `run.json` from then on."""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from tfhuber.config import schema
from tfhuber.config.schema import Config
from tfhuber.console.files import read_json, write_json
from tfhuber.console.lock import locked
from tfhuber.data import dataset, records
from tfhuber.landmarks.known_sets import LandmarkSet, describe
from tfhuber.model import whitening
from tfhuber.runs import provenance, transfer
from tfhuber.runs.load import load_run
from tfhuber.runs.results import read_end

__all__ = ["RunFile", "create_or_check", "fit_whitening", "locked_run"]

_LOGGER = logging.getLogger(__name__)
_LOCK = ".lock"

# What may differ where a finished run goes on for more epochs: it changes no step that was taken.
_FREE_WHEN_EXTENDED = {
    "train.epochs",
    "train.learning_rate",
    "train.schedule",
    "train.evaluation_epochs",
    "train.early_stop_epochs",
    "train.checkpoint_minutes",
}


@contextlib.contextmanager
def locked_run(run: Path) -> Iterator[None]:
    """Make a run's directory if it isn't there, and keep other trainings out of it meanwhile.

    Raises:
      ValueError: if the directory holds something else than a run.
      OSError: if another process is training there, or the directory cannot be made.
    """
    if not (run / "run.json").is_file():
        # The start may have been cut off while the first file was written.
        known = ("run.json.tmp", _LOCK)
        others = [p for p in run.iterdir() if p.name not in known] if run.is_dir() else []
        if others or (run.exists() and not run.is_dir()):
            raise ValueError(f"{run} exists and is no training run; choose another --run")
        run.mkdir(parents=True, exist_ok=True)
    with locked(run / _LOCK, f"{run} is in use by another training"):
        yield


def create_or_check(run: Path, config: Config, landmark_set: LandmarkSet) -> None:
    """Write `run.json`, or check that the run that is there has this configuration.

    A finished run goes on if it is asked for more epochs; a warning says so. That the data set has been
    converted again since is only warned of.

    Raises:
      ValueError: if `run.json` is damaged or of another configuration; the message says what to do.
      OSError: if it cannot be written.
    """
    path = run / "run.json"
    origin = provenance.describe(config.data.directory)
    if not path.is_file():
        values = {
            "config": config.model_dump(mode="json"),
            "landmark_set": describe(landmark_set),
            "provenance": origin,
        }
        write_json(path, values)
        return
    try:
        values = read_json(path)
        there = schema.parse(values["config"], str(path))
        data = values.get("provenance", {}).get("data", origin["data"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); put a copy of it back or choose another --run"
        ) from error
    if changed := schema.differences(there, config):
        _extend(run, values, there, config, changed)
    if data != origin["data"]:
        _LOGGER.warning(
            "%s has changed since %s began: it goes on, but not as it would have ended",
            config.data.directory,
            run,
        )


def _extend(run: Path, values: dict, there: Config, config: Config, changed: list[str]) -> None:
    """Give a finished run the configuration `config`, which has more epochs than `there`.

    Raises:
      ValueError: if more than the rest of the way is `changed`, or the run is not finished.
      OSError: if `run.json` cannot be written.
    """
    before, after = there.train.epochs, config.train.epochs
    keys = {line.partition(":")[0] for line in changed}
    if after <= before or not keys <= _FREE_WHEN_EXTENDED:
        raise ValueError(
            f"{run} holds a run of another configuration (there, here): {'; '.join(changed)}; "
            "choose another --run or delete it"
        )
    if read_end(run) is None:
        raise ValueError(
            f"{run} can be extended to {after} epochs once its {before} are finished: the command that "
            "began it finishes them"
        )
    extended = {**values, "config": config.model_dump(mode="json"), "finished": None}
    write_json(run / "run.json", extended)
    points = ", ".join(f"{rate:g} at {epoch:g}" for epoch, rate in config.train.learning_rate)
    _LOGGER.warning(
        "%s was finished after %d epochs and goes on to %d; its learning rate by epoch: %s, and as the "
        "last beyond it%s",
        run,
        before,
        after,
        points,
        "; train.early_stop_epochs may end it at once" if config.train.early_stop_epochs else "",
    )


def fit_whitening(
    run: Path, split: dataset.Split, recipe: dataset.Recipe, model: schema.Model
) -> None:
    """Compute `whitening.json` from the training split's labels, unless it is there and can be read.

    Landmarks whose rows of the head are transferred (`transfer.kept_rows`) keep their whitening.

    Args:
      run: the run's directory.
      split: what it trains on.
      recipe: how.
      model: the `model` section of its configuration.

    Raises:
      ValueError: if the labels, or the transferred run, cannot be read.
      OSError: if the file cannot be written.
    """
    path, count = run / "whitening.json", split.landmark_set.count
    try:
        whitening.Whitening.load(path, count)
    except FileNotFoundError:
        pass
    except ValueError:
        _LOGGER.warning("%s cannot be read; computing it again", path)
    else:
        return
    labels = dataset.augmented_labels(split, recipe)
    fitted = whitening.fit(dataset.readable(labels, split), count, recipe.image_size)
    if model.transfer is not None:
        source = load_run(model.transfer)
        pairs = transfer.kept_rows(source, model, split.landmark_set)
        fitted = transfer.kept_whitening(fitted, source.whitening, pairs)
    fitted.save(path)


class RunFile:
    """What changes in a run's `run.json` while it trains, kept through kills and restarts.

    `training`: `steps`; `seconds` of wall time that these took, evaluations and the first step's
    compilation included; `evaluation_seconds`, the evaluations' part of them; `images_per_second`
    without that part. Work that was lost with a kill does not count.

    `results`: the metrics that a run is known by at the `latest` and at the `best` evaluation, with
    their `step`.

    `finished`, once training has ended: its last `step`, and the checksum `data_sha256` of the data set
    that `metrics.json` was measured on. It is null while a finished run goes on for more epochs.

    Args:
      run: the run's directory, with a `run.json`.
      batch_size: images a step.

    Raises:
      ValueError: if what is there of an earlier start cannot be understood.
    """

    def __init__(self, run: Path, batch_size: int):
        self._path, self._batch_size = run / "run.json", batch_size
        values = read_json(self._path)
        try:
            training = values.get("training", {})
            self._seconds = float(training.get("seconds", 0.0))
            self._evaluation_seconds = float(training.get("evaluation_seconds", 0.0))
            self._results = dict(values.get("results", {}))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{self._path} is damaged ({error}); delete {run}") from error
        self._start = time.monotonic()

    @contextlib.contextmanager
    def evaluating(self, step: int) -> Iterator[None]:
        """Count the time of the block as that of the evaluation after a step, once for each step."""
        start = time.monotonic()
        yield
        elapsed = time.monotonic() - start
        if self._results.get("latest", {}).get("step") == step:  # by a run that was started again
            self._start += elapsed
        else:
            self._evaluation_seconds += elapsed

    def save(self, step: int, metrics: dict | None = None, best: bool = False) -> None:
        """Write the file, after every checkpoint and every evaluation.

        Args:
          step: steps done.
          metrics: of an evaluation after that step.
          best: whether that evaluation is the best one so far.

        Raises:
          OSError: if that fails.
        """
        seconds = self._seconds + time.monotonic() - self._start
        training_seconds = seconds - self._evaluation_seconds
        training = {
            "seconds": round(seconds, 1),
            "evaluation_seconds": round(self._evaluation_seconds, 1),
            "images_per_second": round(step * self._batch_size / training_seconds, 2),
            "steps": step,
        }
        if metrics is not None:
            self._results["latest"] = {"step": step, **_known_by(metrics)}
            if best:
                self._results["best"] = self._results["latest"]
        self._write(training=training, results=self._results)

    def finish(self, step: int, data: str | Path) -> None:
        """Note that training has ended after `step`, measured on the data set in the directory `data`."""
        checksum = records.read_manifest(data).get("sha256")
        self._write(finished={"step": step, "data_sha256": checksum})

    def _write(self, **changes: dict) -> None:
        write_json(self._path, {**read_json(self._path), **changes})


def _known_by(metrics: dict) -> dict:
    """Return the metrics that a run is known by, named and nested as in `metrics.json`."""
    calibration = {name: metrics["calibration"][name] for name in ("slope", "rank_correlation")}
    deviation = metrics["sharpness"]["percent"]["median_deviation"]
    return {
        **{name: value for name, value in metrics.items() if not isinstance(value, dict)},
        "sharpness": {"percent": {"median_deviation": deviation}},
        "calibration": calibration,
    }
