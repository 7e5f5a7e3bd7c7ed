"""The same training with several seeds: a run each, and what they have in common."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tfhuber.config import schema
from tfhuber.console.files import write_json
from tfhuber.console.signals import run_child
from tfhuber.runs.results import comparable_metrics
from tfhuber.runs.spread import Spread, summarise

__all__ = ["check", "summarise_seeds", "train_seeds"]


def check(
    config: str, seeds: Sequence[int], overrides: Sequence[str], data: str | None, directory: Path
) -> None:
    """Raise ValueError for what would fail later, before the first seed has trained for hours.

    Args:
      config: the configuration's file.
      seeds: of the runs.
      overrides: `key.path=value` for every run.
      data: replaces `data.directory`.
      directory: where the runs `seed-0`, ... go.
    """
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds must differ, got {' '.join(map(str, seeds))}")
    for seed in seeds:
        options = schema.load(config, [*overrides, f"train.seed={seed}"], data=data)
        if options.train.distribution == "multi_worker":
            raise ValueError(
                "several workers train one seed at a time: start tfhuber.launch with tfhuber.train and "
                "--set train.seed=N for each, then compare the runs with tfhuber.compare"
            )
    if (directory / "run.json").exists():
        raise ValueError(f"{directory} is itself a training run; choose another --run")


def train_seeds(
    config: str, seeds: Sequence[int], overrides: Sequence[str], data: str | None, directory: Path
) -> int:
    """Train the runs one after the other; the exit status of the first that fails, or 0.

    A process each, because TensorFlow never gives up the graphs, memory and random state of a training.
    Arguments are as in `check`.

    Raises:
      KeyboardInterrupt: once the training has saved what it must, if it or we were asked to end.
    """
    for seed in seeds:
        command = [sys.executable, "-m", "tfhuber.train", "--config", config]
        command += ["--data", data] if data is not None else []
        for override in (*overrides, f"train.seed={seed}"):
            command += ["--set", override]
        if status := run_child([*command, "--run", str(_run(directory, seed))]):
            return status if status > 0 else 128 - status
    return 0


def summarise_seeds(directory: Path, seeds: Sequence[int]) -> dict[str, Spread]:
    """Return the spread of every metric over the runs, and write it to `seeds.json` in the directory.

    Raises:
      ValueError: if a run is not finished, or they were not measured in the same way on the same data.
      OSError: if a file cannot be read or written.
    """
    summary = summarise(comparable_metrics([_run(directory, seed) for seed in seeds]))
    write_json(directory / "seeds.json", {"seeds": list(seeds), "metrics": summary})
    return summary


def _run(directory: Path, seed: int) -> Path:
    return directory / f"seed-{seed}"
