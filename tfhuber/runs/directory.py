"""The directory of a run before its first step: whose it is, and what must be there to begin."""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from tfhuber.config import schema
from tfhuber.config.schema import Config
from tfhuber.console.files import read_json, write_json
from tfhuber.landmarks.known_sets import LandmarkSet, describe
from tfhuber.runs import provenance

__all__ = ["RunFile", "claim", "fit_whitening"]

_LOGGER = logging.getLogger(__name__)


def claim(run: Path, config: Config, landmark_set: LandmarkSet) -> None:
    """Writes `run.json`, or checks that the run that is there has this configuration.

    That the data set has been converted again since is only warned of.

    Raises:
      ValueError: if the directory holds something else; the message says what to do.
      OSError: if it cannot be written.
    """
    path = run / "run.json"
    come_from = provenance.describe(config.data.directory)
    if path.is_file():
        try:
            values = read_json(path)
            there = schema.parse(values["config"], str(path))
            data = values.get("provenance", {}).get("data", come_from["data"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged ({error}); put a copy of it back or choose another --run"
            ) from error
        changed = schema.differences(there, config)
        if changed:
            raise ValueError(
                f"{run} holds a run of another configuration (there, here): {'; '.join(changed)}; "
                "choose another --run or delete it"
            )
        if data != come_from["data"]:
            _LOGGER.warning(
                "%s has changed since %s began: it goes on, but not as it would have ended",
                config.data.directory,
                run,
            )
        return
    # The start may have been cut off while the first file was written.
    others = [p for p in run.iterdir() if p.name != "run.json.tmp"] if run.is_dir() else []
    if others or (run.exists() and not run.is_dir()):
        raise ValueError(f"{run} exists and is no training run; choose another --run")
    run.mkdir(parents=True, exist_ok=True)
    values = {
        "config": config.model_dump(mode="json"),
        "landmark_set": describe(landmark_set),
        "provenance": come_from,
    }
    write_json(path, values)


def fit_whitening(run: Path, config: Config, split) -> None:
    """Computes `whitening.json` from the training split's labels, unless it is there and can be read.

    Raises:
      ValueError: if the labels cannot be read.
      OSError: if the file cannot be written.
    """
    from tfhuber.data import dataset
    from tfhuber.model import whitening

    path, count = run / "whitening.json", split.landmark_set.count
    try:
        whitening.Whitening.load(path, count)
    except FileNotFoundError:
        pass
    except ValueError:
        _LOGGER.warning("%s cannot be read; computing it again", path)
    else:
        return
    labels = dataset.augmented_labels(split, config)
    whitening.fit(dataset.readable(labels, split), count, config.model.image_size).save(path)


class RunFile:
    """Keeps `training` and `results` in a run's `run.json`, through kills and restarts.

    `training`: `steps`; `seconds` of wall time that these took, evaluations and the first step's
    compilation included; `evaluation_seconds`, the evaluations' part of them; `images_per_second`
    without that part. Work that was lost with a kill does not count.

    `results`: the metrics that a run is known by at the `latest` and at the `best` evaluation, with
    their `step`.

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
        """Around the evaluation after a step, whose time is kept apart, and counts once."""
        start = time.monotonic()
        yield
        elapsed = time.monotonic() - start
        if self._results.get("latest", {}).get("step") == step:  # by a run that was started again
            self._start += elapsed
        else:
            self._evaluation_seconds += elapsed

    def save(self, step: int, metrics: dict | None = None, best: bool = False) -> None:
        """Writes the file, after every checkpoint and every evaluation.

        Args:
          step: steps done.
          metrics: of an evaluation after that step.
          best: whether it is the best one so far.

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
        values = read_json(self._path)
        write_json(self._path, {**values, "training": training, "results": self._results})


def _known_by(metrics: dict) -> dict:
    """The metrics that a run is known by, named and nested as in `metrics.json`."""
    calibration = {name: metrics["calibration"][name] for name in ("slope", "rank_correlation")}
    deviation = metrics["sharpness"]["percent"]["median_deviation"]
    return {
        **{name: value for name, value in metrics.items() if not isinstance(value, dict)},
        "sharpness": {"percent": {"median_deviation": deviation}},
        "calibration": calibration,
    }
