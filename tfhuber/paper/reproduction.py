"""The runs behind the paper's tables: planned, trained and measured."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tfhuber.config import schema
from tfhuber.config.schema import Config
from tfhuber.config.shipped import config_directory
from tfhuber.console.cli import import_tensorflow, progress
from tfhuber.console.cpus import available_cpus
from tfhuber.console.files import read_json, write_json
from tfhuber.data import records
from tfhuber.paper.tables import BASES, Table, Variant

__all__ = ["Run", "plan"]

# Billions of multiply-accumulates of one forward pass at 224 pixels.
GIGAMACS = {"resnet18": 1.81, "resnet50": 4.09, "resnet101": 7.80}


@dataclass(frozen=True)
class Run:
    """One training: a variant with a seed, where it is written, and which run it starts from."""

    variant: Variant
    seed: int
    directory: Path
    config: Config
    pretraining: "Run | None" = None

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def log(self) -> Path:
        return self.directory.with_suffix(".log")

    @property
    def status(self) -> str:
        """`done`, `begun` or `missing`."""
        if (self.directory / "metrics.json").is_file():
            return "done"
        return "begun" if self.directory.exists() else "missing"

    def images(self, examples: int) -> int:
        """Images that the whole training sees."""
        train = self.config.train
        return train.epochs * (examples // train.batch_size) * train.batch_size

    def petaflops(self, examples: int) -> float:
        """Floating-point operations of the training / 1e15: three forward passes a step."""
        model = self.config.model
        macs = 1e9 * GIGAMACS[model.backbone] * (model.image_size / 224) ** 2
        return 6e-15 * macs * self.images(examples)


def plan(
    table: Table, data: Path | None, output: Path, seeds: int, overrides: list[str]
) -> list[Run]:
    """The runs of a table, in an order in which each finds the one that it starts from.

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
    """Where the base's data set lies: in DIR itself or in DIR/NAME; None keeps the configuration's."""
    if data is None:
        return None
    return str(data if (data / records.MANIFEST).is_file() else data / base)


def _check_distinct(runs: list[Run]) -> None:
    for i, one in enumerate(runs):
        for other in runs[:i]:
            if not schema.differences(one.config, other.config):
                raise ValueError(
                    f"with these --set values {other.name} and {one.name} are the same; leave out what "
                    "the table compares, or the seed"
                )


def _examples(run: Run) -> int:
    """Training examples: the data set's own if it is there, else the published number."""
    data = run.config.data
    if not (Path(data.directory) / records.MANIFEST).is_file():
        return BASES[run.variant.base].train_examples
    manifest = records.read_manifest(data.directory)
    return manifest["splits"].get(data.train_split, {"examples": 0})["examples"]


def cost_table(runs: list[Run]) -> str:
    """The runs with epochs, images, floating-point operations and status, as aligned text."""
    rows = [("run", "epochs", "images", "PFLOP", "status")]
    total_images, total_flops = 0, 0.0
    for run in runs:
        examples = _examples(run)
        images, flops = run.images(examples), run.petaflops(examples)
        total_images, total_flops = total_images + images, total_flops + flops
        epochs = str(run.config.train.epochs)
        rows.append((run.name, epochs, f"{images:,}", f"{flops:.3g}", run.status))
    rows.append((f"{len(runs)} runs", "", f"{total_images:,}", f"{total_flops:.3g}", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            f"{cell:<{w}}" if i in (0, 4) else f"{cell:>{w}}" for i, (cell, w) in cells
        ).rstrip()
        for cells in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
    ]
    hours = total_flops * 1e15 / 20e12 / 3600
    return "\n".join([*lines, f"about {hours:,.1f} hours at 20 TFLOP/s"])


def train_all(runs: list[Run], jobs: int) -> list[str]:
    """Trains what is not done, `jobs` at a time, each in a process of its own with a log beside it.

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
    """Whether the run is there, whole; ValueError if it is there with another configuration."""
    if run.status != "done":
        return False
    path = run.directory / "run.json"
    try:
        there = schema.parse(read_json(path)["config"], str(path))
    except (OSError, KeyError, TypeError, ValueError):
        return False  # the training says what is damaged
    changed = schema.differences(there, run.config)
    if changed:
        raise ValueError(
            f"{run.directory} was trained with other values (there, here): {'; '.join(changed)}; choose "
            "another --output"
        )
    return True


def _train(run: Run, jobs: int) -> str | None:
    """Trains one run; what went wrong, if anything did."""
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
    """Every cell's values over the seeds: `{(row, column): [value, ...]}`; runs not done are left out."""
    values = {}
    for cell in table.cells:
        mine = [
            run for run in runs if run.variant.name == cell.variant.name and run.status == "done"
        ]
        found = [_metrics(run, cell.tta).get(cell.metric) for run in mine]
        values[cell.row, cell.column] = [value for value in found if value is not None]
    return values


def _metrics(run: Run, tta: str) -> dict:
    """The final weights' metrics with that test-time augmentation, measured once and kept in the run."""
    trained = read_json(run.directory / "metrics.json")
    if not isinstance(trained, dict):
        raise ValueError(
            f"{run.directory / 'metrics.json'} is damaged; delete it, and it is measured again"
        )
    # `tfhuber.evaluate` may have written another measurement over what the training wrote.
    if trained.get("tta") == tta and trained.get("checkpoint", "latest") == "latest":
        return trained
    path = run.directory / f"metrics-{tta}.json"
    if not path.is_file():
        import_tensorflow()
        from tfhuber.data import dataset
        from tfhuber.evaluation import summary
        from tfhuber.runs import load

        predictor = load.load_run(run.directory)
        data = run.config.data
        split = dataset.open_split(data.directory, data.evaluation_split)
        write_json(path, summary.evaluate(predictor, split, tta))
    return read_json(path)


def _check_data(runs: list[Run], data: Path | None) -> None:
    """ValueError if a data set that the runs need is missing or is another one."""
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
