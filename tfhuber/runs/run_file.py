"""`run.json` as training goes on: how long it has taken, and what it has led to."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from tfhuber.console.files import read_json, write_json

__all__ = ["RunFile"]


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
