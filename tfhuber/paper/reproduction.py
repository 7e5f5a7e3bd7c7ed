"""The runs behind the paper's tables: planned, trained and measured."""

import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfhuber.config import schema
from tfhuber.config.schema import Config
from tfhuber.config.shipped import config_directory
from tfhuber.console.cli import import_tensorflow, progress
from tfhuber.console.cpus import available_cpus
from tfhuber.console.files import read_json, write_json
from tfhuber.console.lazy import lazy_module
from tfhuber.console.table import aligned
from tfhuber.data import records
from tfhuber.paper.tables import BASES, Table, Variant
from tfhuber.runs.results import find_metrics, read_end

if TYPE_CHECKING:
    from tfhuber.evaluation import run_evaluation
else:
    run_evaluation = lazy_module("tfhuber.evaluation.run_evaluation")

__all__ = ["Run", "check_data", "cost_table", "measure", "plan", "train_all"]

# Billions of multiply-accumulates of one forward pass at 224 pixels.
GIGAMACS = {"resnet18": 1.81, "resnet50": 4.09, "resnet101": 7.80}


@dataclass(frozen=True)
class Run:
    """One training: a variant with a seed, where it is written, and the run that it starts from."""

    variant: Variant
    seed: int
    directory: Path
    config: Config
    pretraining: "Run | None" = None

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        return self.directory.name

    @property
    def log(self) -> Path:
        """The file of what its training prints."""
        return self.directory.with_suffix(".log")

    @property
    def status(self) -> str:
        """`done`, `begun` or `missing`."""
        if read_end(self.directory) is not None:
            return "done"
        return "begun" if self.directory.exists() else "missing"

    def images(self, examples: int) -> int:
        """Return how many images the whole training sees."""
        train = self.config.train
        return train.epochs * (examples // train.batch_size) * train.batch_size

    def petaflops(self, examples: int) -> float:
        """Return the floating-point operations of the training / 1e15: three forward passes a step.

        NaN for a backbone other than the paper's, whose operations nobody has counted.
        """
        model = self.config.model
        macs = 1e9 * GIGAMACS.get(model.backbone, math.nan) * (model.image_size / 224) ** 2
        return 6e-15 * macs * self.images(examples)


def plan(
    table: Table, data: Path | None, output: Path, seeds: int, overrides: list[str]
) -> list[Run]:
    """Return the runs of a table, each after the run that it starts from.

    Args:
      table: one of `TABLES`.
      data: a converted data set, or a directory of several named as in `BASES`; None to plan only.
      output: where `runs/` is.
      seeds: runs of each variant, with the seeds 0, 1, ...
      overrides: `key.path=value` for every run, stronger than what the table sets.

    Raises:
      ValueError: an override is wrong, or makes equal what the table compares.
    """
    runs: dict[tuple[str, int], Run] = {}
    for variant in table.variants:
        directory = _data_directory(data, variant.base)
        for seed in range(seeds):
            changes = dict(variant.changes)
            before = variant.pretraining and runs[variant.pretraining.name, seed]
            if before:
                changes["model.transfer"] = str(before.directory)
            texts = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
            config = schema.load(
                config_directory() / f"{variant.base}.json",
                [*texts, f"train.seed={seed}", *overrides],
                data=directory,
            )
            path = output / "runs" / f"{variant.name}-seed{seed}"
            runs[variant.name, seed] = Run(variant, seed, path, config, before or None)
    _check_distinct(list(runs.values()))
    return list(runs.values())


def _data_directory(data: Path | None, base: str) -> str | None:
    """Return where the base's data set lies, DIR or DIR/NAME; None keeps the configuration's."""
    if data is None:
        return None
    return str(data if (data / records.MANIFEST).is_file() else data / base)


def _check_distinct(runs: list[Run]) -> None:
    """Raise ValueError if two of the runs are the same training."""
    for i, one in enumerate(runs):
        for other in runs[:i]:
            if not schema.differences(one.config, other.config):
                raise ValueError(
                    f"with these --set values {other.name} and {one.name} are the same; leave out what "
                    "the table compares, or the seed"
                )


def _examples(run: Run) -> int:
    """Return how many training examples the data set has, or, if it is not there, has as published."""
    data = run.config.data
    if not (Path(data.directory) / records.MANIFEST).is_file():
        return BASES[run.variant.base].train_examples
    manifest = records.read_manifest(data.directory)
    return manifest["splits"].get(data.train_split, {"examples": 0})["examples"]


def cost_table(runs: list[Run]) -> str:
    """Return the runs with epochs, images, floating-point operations and status, as aligned text."""
    rows = [("run", "epochs", "images", "PFLOP", "status")]
    total_images, total_flops = 0, 0.0
    for run in runs:
        examples = _examples(run)
        images, flops = run.images(examples), run.petaflops(examples)
        total_images, total_flops = total_images + images, total_flops + flops
        epochs = str(run.config.train.epochs)
        rows.append((run.name, epochs, f"{images:,}", _counted(flops), run.status))
    rows.append((f"{len(runs)} runs", "", f"{total_images:,}", _counted(total_flops), ""))
    table = aligned(rows, right=(1, 2, 3))
    if math.isnan(total_flops):
        return table
    hours = total_flops * 1e15 / 20e12 / 3600
    return f"{table}\nabout {hours:,.1f} hours at 20 TFLOP/s"


def _counted(petaflops: float) -> str:
    return "unknown" if math.isnan(petaflops) else f"{petaflops:.3g}"


def train_all(runs: list[Run], jobs: int) -> list[str]:
    """Train what is not done, `jobs` at a time, each in a process of its own with a log beside it.

    Returns:
      What went wrong, a line for each run that failed; the others are done.
    """
    missing = [run for run in runs if not _is_done(run)]
    failures: list[str] = []
    bar = progress(total=len(missing), desc="training runs", unit="run")
    # Runs that others start from come first, in a round of their own.
    rounds = [
        [run for run in missing if run.pretraining is None],
        [run for run in missing if run.pretraining is not None],
    ]
    for batch in rounds:
        with ThreadPoolExecutor(jobs) as pool:
            for fault in pool.map(lambda run: _train(run, jobs), batch):
                failures += [fault] if fault else []
                bar.update()
    bar.close()
    return failures


def _is_done(run: Run) -> bool:
    """Return whether the run is there and finished.

    Raises:
      ValueError: if it is of another configuration, which the splits are part of, or of another data set.
    """
    end = read_end(run.directory)
    if end is None:
        return False
    path = run.directory / "run.json"
    try:
        there = schema.parse(read_json(path)["config"], str(path))
    except (OSError, KeyError, TypeError, ValueError):
        return False  # the training says what is damaged
    if changed := schema.differences(there, run.config):
        raise ValueError(
            f"{run.directory} was trained with other values (there, here): {'; '.join(changed)}; choose "
            "another --output"
        )
    if end.trained_on not in (None, _checksum(run)):
        raise ValueError(
            f"{run.directory} was trained on another data set (sha256 {end.trained_on}) than "
            f"{run.config.data.directory} holds now ({_checksum(run)}); choose another --output"
        )
    return True


def _checksum(run: Run) -> str | None:
    """Return the checksum of the data set that the run needs."""
    return records.read_manifest(run.config.data.directory).get("sha256")


def _train(run: Run, jobs: int) -> str | None:
    """Train one run, and return what went wrong, if anything did."""
    run.directory.parent.mkdir(parents=True, exist_ok=True)
    config_file = run.directory.with_suffix(".json")
    write_json(config_file, run.config.model_dump(mode="json"))
    command = [sys.executable, "-m", "tfhuber.train"]
    command += ["--config", str(config_file), "--run", str(run.directory)]
    environment = dict(os.environ)
    if jobs > 1:
        threads = str(max(1, available_cpus() // jobs))
        environment |= {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}
    with run.log.open("a", encoding="utf-8") as log:
        code = subprocess.run(command, stdout=log, stderr=log, env=environment).returncode
    if code == 0:
        return None
    lines = run.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{run.name}: {lines[-1] if lines else f'exit code {code}'} (log: {run.log})"


def measure(runs: list[Run], table: Table) -> dict:
    """Return every cell's values over the seeds, `{(row, column): [value, ...]}`, of runs that are done."""
    values = {}
    for cell in table.cells:
        mine = [
            run for run in runs if run.variant.name == cell.variant.name and run.status == "done"
        ]
        found = [_metrics(run, cell.tta).get(cell.metric) for run in mine]
        values[cell.row, cell.column] = [value for value in found if value is not None]
    return values


def _metrics(run: Run, tta: str) -> dict:
    """Return the final weights' metrics with that test-time augmentation; measure what is not there."""
    split = run.config.data.evaluation_split
    metrics = find_metrics(run.directory, split, tta, _checksum(run))
    if metrics is None:
        import_tensorflow()
        metrics, _ = run_evaluation.evaluate_run(run.directory, tta=tta)
    return metrics


def check_data(runs: list[Run], data: Path | None) -> None:
    """Raise ValueError if a data set that the runs need is missing or is of other landmarks."""
    for run in runs:
        base, directory = run.variant.base, run.config.data.directory
        if not (Path(directory) / records.MANIFEST).is_file():
            where = "" if data else ", or say where it is with --data DIR"
            raise ValueError(
                f"{directory} is no converted data set; make it with `python -m pipelines.make_tfrecords "
                f"--dataset {base} --source SOURCE --output {directory}`{where}"
            )
        found = records.read_manifest(directory)["landmark_set"].get("name")
        if found != base:
            raise ValueError(f"{directory} holds {found} landmarks, but the table needs {base}")
