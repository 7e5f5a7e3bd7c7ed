"""Runs side by side: what they were set to, and what came of it."""

import itertools
import json
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfhuber.config.reference import flatten
from tfhuber.config.schema import Config, Data
from tfhuber.console.files import read_json
from tfhuber.console.table import aligned
from tfhuber.runs import results
from tfhuber.runs.spread import Spread, mean_and_deviation, spread

__all__ = [
    "Row",
    "Run",
    "as_json",
    "over_seeds",
    "read_run",
    "rows",
    "seeds_text",
    "table",
    "warnings",
]

Rank = Callable[[float], float]


def _low(value: float) -> float:
    return value


def _high(value: float) -> float:
    return -value


def _near(target: float) -> Rank:
    return lambda value: abs(value - target)


# What is shown of metrics: a name, the key, and a function that is lowest for the best value.
_MEASURES: tuple[tuple[str, str, Rank], ...] = (
    ("NME, %", "nme", _low),
    ("PCKh@0.5, %", "pckh_0.5", _high),
    ("loss (eq. 6)", "loss", _low),
    ("NLL against Gauss", "nll_relative", _low),
    ("NLL, original pixels", "nll", _low),
    ("in 50 % ellipses", "coverage_50", _near(0.5)),
    ("in 90 % ellipses", "coverage_90", _near(0.9)),
    ("in 95 % ellipses", "coverage_95", _near(0.95)),
    ("sharpness, %", "sharpness.percent.median_deviation", _low),
    ("calibration slope", "calibration.slope", _near(1.0)),
    ("rank correlation", "calibration.rank_correlation", _high),
)
_NARROWEST = 12
_SEED = "train.seed"


@dataclass(frozen=True)
class Run:
    """A training run's files.

    Attributes:
      directory: as it was given.
      config: its configuration by dotted keys, defaults included.
      facts: the rest of `run.json`, by dotted keys, but for `results`.
      results: what training measured, by dotted keys: `metrics.json`; before the end of the training
        what `run.json` has of the latest evaluation, and before the first nothing.
      evaluations: what `tfhuber.evaluate` measured, by `SPLIT-TTA-CHECKPOINT`, by dotted keys.
    """

    directory: str
    config: dict[str, Any]
    facts: dict[str, Any]
    results: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]

    @property
    def landmarks(self) -> str | None:
        """The name of its landmark set."""
        return self.facts.get("landmark_set.name", self.facts.get("landmark_set"))


@dataclass(frozen=True)
class Row:
    """One line of the table: a value a run, and which of them are best."""

    name: str
    values: list[str]
    best: frozenset[int] = frozenset()

    def cell(self, run: int) -> str:
        """Return the value as the table shows it."""
        return "*" * (run in self.best) + self.values[run]


def read_run(directory: str) -> Run:
    """Return the run in a directory.

    Raises:
      ValueError: naming the directory or the file if it is no training run.
      OSError: if a file cannot be read.
    """
    path = Path(directory) / "run.json"
    if not path.is_file():
        raise ValueError(f"{directory} is no training run: it holds no run.json")
    facts = read_json(path)
    config = facts.pop("config", None) if isinstance(facts, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("data"), dict):
        raise ValueError(f"{path} is not that of a training run: it holds no configuration")
    so_far = facts.pop("results", {})
    metrics = so_far.get("latest", {}) if isinstance(so_far, dict) else None
    if results.read_end(Path(directory)) is not None:
        metrics = results.final_metrics(Path(directory))
    if not isinstance(metrics, dict):
        raise ValueError(f"{path} holds no metrics")
    evaluated = results.evaluations(Path(directory))
    # An older run lacks the keys that are newer, whose defaults are what it did.
    defaults = Config(data=Data(directory="")).model_dump(mode="json")
    return Run(
        directory,
        flatten(defaults) | flatten(config),
        flatten(facts),
        flatten(metrics),
        {name: flatten(values) for name, values in evaluated.items()},
    )


def rows(runs: Sequence[Run], everything: bool = False) -> dict[str, list[Row]]:
    """Return the table's rows by the heading above them.

    Args:
      runs: at least one.
      everything: also what is the same in all runs.
    """
    configuration = [
        Row(key, [_text(run.config.get(key)) for run in runs]) for key in _config_keys(runs)
    ]
    origin = [Row("landmarks", [_text(run.landmarks) for run in runs])]
    origin += [_fact_row(runs, name, key) for name, key in _origins(runs).items()]
    if not everything:
        configuration = [row for row in configuration if len(set(row.values)) > 1]
        always = ("commit", "data, sha256")
        origin = [row for row in origin if row.name in always or len(set(row.values)) > 1]
    found = [Row("measured on", [_measured_on(run) for run in runs])]
    found += _measure_rows(runs, [run.results for run in runs])
    steps = [run.facts.get("training.steps") for run in runs]
    found.append(Row("steps", [_text(value) for value in steps]))
    found.append(_number_row("minutes", [_minutes(run) for run in runs]))
    speeds = [run.facts.get("training.images_per_second") for run in runs]
    found.append(_number_row("images/s", speeds, _high))
    sections = {"configuration": configuration, "results": found}
    for name in sorted({name for run in runs for name in run.evaluations}):
        metrics = [run.evaluations.get(name, {}) for run in runs]
        after = Row("after step", [_text(values.get("step")) for values in metrics])
        sections[f"evaluation {name}"] = [after, *_measure_rows(runs, metrics)]
    shown = {
        heading: [row for row in section if everything or set(row.values) != {"-"}]
        for heading, section in sections.items()
    }
    return {**shown, "origin": origin}


def warnings(runs: Sequence[Run]) -> list[str]:
    """Return why results are not to be compared, one line each."""

    def differ(values: Iterable[Any]) -> bool:
        return len(set(values) - {None, "-"}) > 1

    found = []
    if differ(run.landmarks for run in runs):
        found.append("the runs are of different landmarks, so no result is marked as the best")
    elif differ(run.facts.get("provenance.data.sha256") for run in runs):
        found.append("the runs are of different data sets, so their results don't compare")
    if differ(_measured_on(run) for run in runs):
        found.append("the runs were measured on different splits or in different ways")
    for name in sorted({name for run in runs for name in run.evaluations}):
        if differ(run.evaluations.get(name, {}).get("data.sha256") for run in runs):
            found.append(f"the evaluations {name} are of different data sets")
    for run in runs:
        end = run.facts.get("finished.data_sha256")
        if differ([end, run.facts.get("provenance.data.sha256")]):
            found.append(f"{run.directory} was trained on one data set and measured on another")
        for name, values in run.evaluations.items():
            if differ([_step_now(run, values.get("checkpoint")), values.get("step")]):
                found.append(f"{run.directory} has trained on since its evaluation {name}")
    return found


def _step_now(run: Run, checkpoint: str | None) -> int | None:
    """Return the step of a run's checkpoint as far as `run.json` says."""
    return run.facts.get("training.steps") if checkpoint == "latest" else None


def over_seeds(runs: Sequence[Run]) -> list[tuple[list[Run], dict[str, Spread]]]:
    """Return groups of runs that differ in `train.seed` alone, with the spread of their results by name."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        others = {key: value for key, value in run.config.items() if key not in ("about", _SEED)}
        same = [others, run.landmarks, run.facts.get("provenance.data.sha256"), _measured_on(run)]
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(run)
    found = []
    for group in groups.values():
        if len({run.config.get(_SEED) for run in group}) < max(2, len(group)):
            continue
        values = {
            name: [_finite(run.results.get(key)) for run in group] for name, key, _ in _MEASURES
        }
        spreads = {
            name: spread(each)
            for name, each in values.items()
            if all(isinstance(value, int | float) for value in each)
        }
        if spreads:
            found.append((group, spreads))
    return found


def table(runs: Sequence[Run], sections: dict[str, list[Row]], width: int) -> str:
    """Return the rows as text of at most `width` columns, in several tables where one is too wide."""
    names = _names(runs)
    every_row = [row for section in sections.values() for row in section]
    label_width = max(len(row.name) for row in every_row) + 2
    room = max(width - label_width, _NARROWEST)
    needed = [
        max(len(name), *(len(row.cell(i)) for row in every_row)) for i, name in enumerate(names)
    ]
    blocks, rest = [], list(range(len(runs)))
    while rest:
        columns = [rest.pop(0)]
        while rest and _fits([needed[i] for i in (*columns, rest[0])], room):
            columns.append(rest.pop(0))
        widths = {i: min(needed[i], room // len(columns) - 2) for i in columns}
        lines = _lines("", {i: names[i] for i in columns}, label_width, widths)
        for heading, section in sections.items():
            lines += ["", heading] if section else []
            for row in section:
                cells = {i: row.cell(i) for i in columns}
                lines += _lines(f"  {row.name}", cells, label_width, widths)
        blocks.append("\n".join(lines))
    return "\n\n\n".join(blocks)


def seeds_text(group: Sequence[Run], spreads: dict[str, Spread]) -> str:
    """Return mean and deviation of a group of `over_seeds` as text, a line each metric."""
    lines = aligned([(name, mean_and_deviation(each)) for name, each in spreads.items()])
    heading = f"mean and standard deviation over seeds: {', '.join(_names(group))}"
    return f"{heading}\n{textwrap.indent(lines, '  ')}"


def _config_keys(runs: Sequence[Run]) -> list[str]:
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [key for key in keys if key != "about"]


def _origins(runs: Sequence[Run]) -> dict[str, str]:
    """Return the rows on where the runs come from: their names, and keys of `Run.facts`."""
    versions = dict.fromkeys(
        key for run in runs for key in run.facts if key.startswith("provenance.versions.")
    )
    return {
        "commit": "provenance.commit.sha",
        "data, sha256": "provenance.data.sha256",
        **{key.rpartition("versions.")[2]: key for key in versions},
        "processors": "provenance.host.cpus",
        "devices": "provenance.host.devices",
    }


def _fact_row(runs: Sequence[Run], name: str, key: str) -> Row:
    values = [_text(run.facts.get(key)) for run in runs]
    if key.endswith(".sha") or key.endswith(".sha256"):
        values = [value[:12] for value in values]
    if name == "commit":
        modified = [run.facts.get("provenance.commit.modified") for run in runs]
        values = [v + " modified" * (m is True) for v, m in zip(values, modified, strict=True)]
    return Row(name, values)


def _measured_on(run: Run) -> str:
    if not run.results:
        return "-"
    split, tta = run.results.get("split"), run.results.get("tta", "none")
    checkpoint = run.results.get("checkpoint", "latest")
    return f"{split}, tta {tta}, {checkpoint}"


def _measure_rows(runs: Sequence[Run], metrics: Sequence[dict[str, Any]]) -> list[Row]:
    """Return a row for each measure of the runs' metrics."""
    families = {(run.config["model.family"], run.config["model.delta"]) for run in runs}
    others = len({run.landmarks for run in runs}) > 1
    found = []
    for name, key, rank in _MEASURES:
        # The loss leaves out a constant, which is another for each family.
        comparable = not others and (key != "loss" or len(families) == 1)
        values = [each.get(key) for each in metrics]
        found.append(_number_row(name, values, rank if comparable else None))
    return found


def _minutes(run: Run) -> float | None:
    seconds = run.facts.get("training.seconds")
    return seconds / 60 if isinstance(seconds, int | float) else None


def _number_row(name: str, values: list, rank: Rank | None = None) -> Row:
    """Return numbers with as many decimals each as the largest one needs for four digits."""
    numbers = {i: v for i, v in enumerate(values) if isinstance(v, int | float)}
    finite = {i: v for i, v in numbers.items() if math.isfinite(v)}
    largest = max(map(abs, finite.values()), default=0)
    decimals = min(max(3 - math.floor(math.log10(largest)), 0), 6) if largest > 0 else 0
    texts = [f"{numbers[i]:.{decimals}f}" if i in numbers else "-" for i in range(len(values))]
    if rank is None or len({texts[i] for i in finite}) < 2:
        return Row(name, texts)
    best = min(map(rank, finite.values()))
    best_texts = {texts[i] for i, value in finite.items() if rank(value) == best}
    return Row(name, texts, frozenset(i for i in finite if texts[i] in best_texts))


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    return json.dumps(value)


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the directories' own names where these tell the runs apart, or else their whole paths."""
    names = [Path(run.directory).resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [run.directory for run in runs]


def _fits(needed: list[int], room: int) -> bool:
    """Return whether columns fit beside each other without making long values many lines high."""
    return room // len(needed) - 2 >= min(max(needed), 2 * _NARROWEST)


def _lines(
    label: str, cells: dict[int, str], label_width: int, widths: dict[int, int]
) -> list[str]:
    """Return one row as lines; what is wider than its column goes on in the next line."""
    parts = [textwrap.wrap(cells[i], width) or [""] for i, width in widths.items()]
    return [
        "  ".join([f"{left:<{label_width}}", *map(str.rjust, texts, widths.values())]).rstrip()
        for left, *texts in itertools.zip_longest([label], *parts, fillvalue="")
    ]


def as_json(runs: Sequence[Run], everything: bool) -> dict:
    """Return what the table shows, with numbers as they are."""
    keys = [
        key
        for key in _config_keys(runs)
        if everything or any(run.config.get(key) != runs[0].config.get(key) for run in runs)
    ]
    described = [
        {
            "run": run.directory,
            "landmarks": run.landmarks,
            "config": {key: run.config.get(key) for key in keys},
            "results": {key: _finite(value) for key, value in run.results.items()},
            "evaluations": {
                name: {key: _finite(value) for key, value in values.items()}
                for name, values in run.evaluations.items()
            },
            "facts": {
                key: _finite(value)
                for key, value in run.facts.items()
                if not key.startswith("landmark_set.")
            },
        }
        for run in runs
    ]
    seeds = [
        {"runs": [run.directory for run in group], "results": spreads}
        for group, spreads in over_seeds(runs)
    ]
    return {"runs": described, "seeds": seeds, "warnings": warnings(runs)}


def _finite(value: Any) -> Any:
    """Return the value, or None for NaN and infinity, which JSON lacks."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
