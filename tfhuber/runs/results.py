"""What was measured of a run: by its training, and by `tfhuber.evaluate` afterwards.

Training writes `metrics.json` of its last weights, and then that the run is `finished` to `run.json`.
Evaluating writes `evaluations/SPLIT-TTA-CHECKPOINT.json`, whose `step` and `data` say what was measured,
and `...-calibrated.json` of a calibrated run. On another data set than the run's own it is
`SPLIT-TTA-CHECKPOINT-on-FOLDER-CHECKSUM.json`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfhuber.console.files import read_json

__all__ = [
    "End",
    "comparable_metrics",
    "data_name",
    "evaluation_path",
    "evaluations",
    "final_metrics",
    "find_metrics",
    "read_end",
]


@dataclass(frozen=True)
class End:
    """The end of a training; None stands for what is unknown.

    Attributes:
      step: the last step.
      trained_on: the checksum of the data set's manifest when the training began.
      measured_on: that of the data set that `metrics.json` was measured on.
    """

    step: int | None
    trained_on: str | None
    measured_on: str | None


def read_end(run: Path) -> End | None:
    """Return where a run's training ended; None if it has not, or its `run.json` cannot be understood."""
    try:
        values = read_json(run / "run.json")
        trained_on = values.get("provenance", {}).get("data", {}).get("sha256")
        if "finished" in values:
            end = values["finished"]
            if end is None:
                return None
            return End(end["step"], trained_on, end["data_sha256"])
        # A run of before that key: evaluating then wrote metrics.json too, always with a `checkpoint`.
        if values["results"] and "checkpoint" not in read_json(run / "metrics.json"):
            return End(values["training"]["steps"], trained_on, trained_on)
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        pass
    return None


def final_metrics(run: Path) -> dict:
    """Return `metrics.json` of a run that is finished.

    Raises:
      ValueError: if the run is not finished, or the file holds no metrics.
      OSError: if the file cannot be read.
    """
    if read_end(run) is None:
        raise ValueError(f"{run} is not finished; train it to its end")
    return _read(run / "metrics.json")


def comparable_metrics(runs: Sequence[Path]) -> list[dict]:
    """Return `metrics.json` of each run, all measured in the same way.

    Raises:
      ValueError: if one is not finished, or two were trained on other data sets or measured on others, on
        other splits or with another test-time augmentation.
      OSError: if a file cannot be read.
    """
    found = [final_metrics(run) for run in runs]
    first: dict[str, tuple[Path, str]] = {}
    for run, metrics in zip(runs, found, strict=True):
        end = read_end(run)
        assert end is not None
        facts = {
            "trained on the data set": end.trained_on,
            "measured on the data set": end.measured_on,
            "measured on the split": metrics.get("split"),
            "measured with tta": metrics.get("tta"),
        }
        for what, value in facts.items():
            if value is not None and first.setdefault(what, (run, value))[1] != value:
                other, before = first[what]
                raise ValueError(f"{run} was {what} {value}, but {other} was {what} {before}")
    return found


def evaluation_path(
    run: Path, split: str, tta: str, checkpoint: str, *, calibrated: bool = False, other: str = ""
) -> Path:
    """Return the file for the metrics of a run's checkpoint on a split with a test-time augmentation.

    Args:
      run: the run's directory.
      split: the split's name.
      tta: the test-time augmentation, as in `Predictor.predict`.
      checkpoint: "latest" or "best".
      calibrated: whether the run's calibration is used.
      other: a name for the data set, as `data_name` gives it; empty where it is the run's own.
    """
    on = f"-on-{other}" if other else ""
    suffix = "-calibrated" if calibrated else ""
    name = re.sub(r"[^\w.-]", "_", f"{split}-{tta}-{checkpoint}{on}{suffix}")
    return run / "evaluations" / f"{name}.json"


def data_name(directory: str | Path, sha256: str | None) -> str:
    """Return a name for a data set in files' names: its folder's, and the first digits of its checksum.

    >>> data_name("data/faces", "0123456789abcdef")
    'faces-01234567'
    """
    return f"{Path(directory).resolve().name[:60]}-{(sha256 or 'unknown')[:8]}"


def evaluations(run: Path) -> dict[str, dict]:
    """Return what `tfhuber.evaluate` measured of a run, by its file's name without `.json`.

    Raises:
      ValueError: if a file holds no metrics.
      OSError: if a file cannot be read.
    """
    found = {path.stem: _read(path) for path in sorted((run / "evaluations").glob("*.json"))}
    old = run / "metrics.json"  # which evaluating used to write
    if old.is_file() and "checkpoint" in (values := _read(old)):
        name = f"{values.get('split')}-{values.get('tta', 'none')}-{values['checkpoint']}"
        found.setdefault(name, values)
    return found


def find_metrics(run: Path, split: str, tta: str, data_sha256: str | None) -> dict | None:
    """Return the metrics of a finished run's last weights on a split of a data set.

    Args:
      run: the run's directory.
      split: the split's name.
      tta: the test-time augmentation, as in `Predictor.predict`.
      data_sha256: the checksum of the data set's manifest.

    Returns:
      The metrics that training or evaluating wrote; None if neither has measured exactly that.

    Raises:
      ValueError: if a file holds no metrics.
      OSError: if a file cannot be read.
    """
    end = read_end(run)
    if end is None:
        return None
    trained, evaluated = run / "metrics.json", evaluation_path(run, split, tta, "latest")
    elsewhere = f"{evaluated.stem}-on-*-{(data_sha256 or 'unknown')[:8]}.json"
    if tta == "none" and trained.is_file() and end.measured_on in (None, data_sha256):
        metrics = _read(trained)
        if metrics.get("split") == split:
            return metrics
    for path in (evaluated, *sorted(evaluated.parent.glob(elsewhere))):
        metrics = _read(path) if path.is_file() else {}
        data = metrics.get("data", {})
        if metrics.get("step") == end.step and data.get("sha256") == data_sha256:
            return metrics
    return None


def _read(path: Path) -> dict:
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no metrics; delete it, and measure the run again")
    return values
