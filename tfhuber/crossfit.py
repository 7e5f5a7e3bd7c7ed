"""Train K runs, each without a part of the data: `python -m tfhuber.crossfit --config FILE --output DIR`.

Each run then predicts the part that it did not see. So a data set audits its own labels
(`tfhuber.audit --folds DIR`), and calibrates a run that was trained on all of it, with no photograph to
spare (`tfhuber.calibrate --run RUN --folds DIR`). The same command started again goes on where it was.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tfhuber.config import schema
from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.files import read_json, write_json
from tfhuber.console.lazy import lazy_module
from tfhuber.console.signals import undisturbed
from tfhuber.data import records
from tfhuber.runs import folds, results

if TYPE_CHECKING:
    from tfhuber.evaluation import summary
    from tfhuber.training import trainer
else:
    summary = lazy_module("tfhuber.evaluation.summary")
    trainer = lazy_module("tfhuber.training.trainer")

__all__ = ["main"]

_PLAN = "plan.json"


def main() -> int:
    """Run the command line."""
    arguments = _parse()
    config = schema.load(arguments.config, arguments.set, data=arguments.data)
    output, data = Path(arguments.output), Path(config.data.directory)
    split, count = config.data.train_split, arguments.folds
    sha256 = records.read_manifest(data).get("sha256")
    settings = config.model_dump(mode="json", exclude={"data": {"directory"}})
    plan = {"sha256": sha256, "split": split, "folds": count, "by": arguments.by}
    _keep_to(output / _PLAN, plan | {"config": settings})
    made = folds.Folds(data, split, sha256, tuple(output / f"fold-{i}" for i in range(count)))
    for i, directory in enumerate(made.directories):
        folds.make_fold(directory / "data", data, split, i, count, arguments.by)
    train = undisturbed(_load)
    for i, directory in enumerate(made.directories, 1):
        print(f"fold {i} of {count}", flush=True)
        if results.read_end(directory / "run"):
            continue
        metrics = train(_config_of(arguments, directory), directory / "run")
        if metrics:
            print(f"{directory / 'run'}: {summary.headline(metrics)}")
    made.write(output)
    print(f"{output / folds.FILE}: {count} runs, each with photographs that it did not see")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tfhuber.crossfit", description=__doc__)
    parser.add_argument("--config", required=True, help="as for tfhuber.train")
    parser.add_argument("--data", help="the converted data set; replaces data.directory")
    parser.add_argument("--output", required=True, help="the directory of the folds")
    parser.add_argument("--folds", type=int, default=5, help="how many (5)")
    parser.add_argument(
        "--by",
        choices=("photograph", "folder"),
        default="photograph",
        help="what is never divided: a photograph, or a folder of them, such as a video's frames",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="as for tfhuber.train"
    )
    arguments = parser.parse_args()
    if arguments.folds < 2:
        raise ValueError(f"--folds must be at least 2, got {arguments.folds}")
    return arguments


def _keep_to(path: Path, plan: dict[str, object]) -> None:
    """Write what is to be done, or raise ValueError if something else was begun there."""
    if path.is_file() and (begun := read_json(path)) != plan:
        differing = ", ".join(key for key in plan if begun.get(key) != plan[key])
        raise ValueError(
            f"{path.parent} was begun with other {differing}; give it again, or another --output"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, plan)


def _config_of(arguments: argparse.Namespace, directory: Path) -> schema.Config:
    overrides = [*arguments.set, "data.train_split=train", f"data.evaluation_split={folds.HELD}"]
    return schema.load(arguments.config, overrides, data=str(directory / "data"))


def _load() -> Callable[[schema.Config, Path], dict]:
    import_tensorflow()
    return trainer.train


if __name__ == "__main__":
    run_main(main)
