"""Find wrong labels: `python -m tfhuber.audit --run DIR [--split valid]`, or `--folds DIR`.

The run predicts a split that it was not trained on; or each run of tfhuber.crossfit the part that it left
out. A label is in doubt where it is likelier to be anywhere on the object than from the predicted
distribution, and a whole annotation where left and right exchanged, points shifted by one, another place or
another object explain it better. Writes, the most suspicious first, `suspects.csv`, `suspects.png` and, for
labelling tools, `suspects.json` to `DIR/audit/SPLIT/`. docs/audit.md says more.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tfhuber.calibration.law import Law
from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    from tfhuber.audit import label_files, run_audit
    from tfhuber.calibration import corrected
    from tfhuber.data import dataset
    from tfhuber.drawing import overlay
    from tfhuber.evaluation.predictions import Predictions
    from tfhuber.model.predictor import Predictor
    from tfhuber.runs import folds, load
else:
    label_files = lazy_module("tfhuber.audit.label_files")
    run_audit = lazy_module("tfhuber.audit.run_audit")
    corrected = lazy_module("tfhuber.calibration.corrected")
    dataset = lazy_module("tfhuber.data.dataset")
    overlay = lazy_module("tfhuber.drawing.overlay")
    folds = lazy_module("tfhuber.runs.folds")
    load = lazy_module("tfhuber.runs.load")

__all__ = ["main"]


def main() -> int:
    """Run the command line."""
    arguments = _parse()
    import_tensorflow()
    if arguments.folds:
        divided = folds.read_folds(arguments.folds)
        predictor, split, found = run_audit.cross_fitted(divided, arguments.checkpoint)
        output = Path(arguments.output or Path(arguments.folds) / "audit")
    else:
        predictor, split, found = _predicted(arguments)
        output = Path(arguments.output or Path(arguments.run) / "audit" / split.name)
    law = Law(predictor.options.family, predictor.options.delta)
    doubted = run_audit.suspects(found, law, predictor.landmark_set.mirror)
    written = _write(output, doubted, predictor, split, found)
    _report(doubted, len(found.id), int((found.weights > 0).sum()), written)
    if not arguments.folds and _has_learned(Path(arguments.run), split):
        print(
            "note: the run was trained on this split, and so believes its labels; choose another, or "
            "cross-fit (tfhuber.crossfit, and --folds here)"
        )
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tfhuber.audit", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", help="a directory that tfhuber.train wrote")
    which.add_argument(
        "--folds", help="a directory of tfhuber.crossfit, whose data audit themselves"
    )
    parser.add_argument("--data", help="the converted data set (default: the run's)")
    parser.add_argument("--split", help="the split to look at (default: the run's, to evaluate on)")
    parser.add_argument("--checkpoint", choices=("latest", "best"), default="latest")
    parser.add_argument(
        "--uncalibrated", action="store_true", help="take the model without its calibration.json"
    )
    parser.add_argument("--output", help="where to write (default: RUN/audit/SPLIT, FOLDS/audit)")
    arguments = parser.parse_args()
    if arguments.folds and (arguments.data or arguments.split):
        raise ValueError("--folds are of a split of their own; leave out --data and --split")
    return arguments


def _predicted(arguments: argparse.Namespace) -> "tuple[Predictor, dataset.Split, Predictions]":
    run = Path(arguments.run)
    predictor, config = load.load_run(run, arguments.checkpoint), load.read_config(run)
    name = arguments.split or config.data.evaluation_split
    split = dataset.open_split(arguments.data or config.data.directory, name)
    predictor, found = corrected.collect_corrected(
        run, predictor, split, calibrated=not arguments.uncalibrated
    )
    return predictor, split, found


def _write(
    output: Path,
    doubted: "list[run_audit.Suspect]",
    predictor: "Predictor",
    split: "dataset.Split",
    found: "Predictions",
) -> list[Path]:
    """Write the table, the pictures and the files for labelling tools, and return their names."""
    names = predictor.landmark_set.names
    table, *others = (output / f"suspects.{kind}" for kind in ("csv", "png", "json"))
    sheet, annotations, frames = *others, output / "CollectedData_audit.csv"
    run_audit.write_table(table, doubted, found, names)
    for earlier in (sheet, annotations, frames):  # of an audit that doubted something else
        earlier.unlink(missing_ok=True)
    if not doubted:
        return [table]
    overlay.save_image(run_audit.sheet(doubted, predictor, split, found), sheet)
    label_files.write_coco(annotations, doubted, found, split)
    has_frames = label_files.write_dlc(frames, doubted, found, split)
    return [table, sheet, annotations, *([frames] if has_frames else [])]


def _has_learned(run: Path, split: "dataset.Split") -> bool:
    data = load.read_config(run).data
    return (Path(data.directory).resolve(), data.train_split) == (
        split.directory.resolve(),
        split.name,
    )


def _report(
    doubted: "list[run_audit.Suspect]", examples: int, labels: int, written: list[Path]
) -> None:
    points = sum(suspect.landmark is not None for suspect in doubted)
    kinds = Counter(suspect.kind for suspect in doubted if suspect.landmark is None)
    print(
        f"{points} of {labels} labels and {sum(kinds.values())} of {examples} annotations in doubt"
    )
    for kind, count in kinds.most_common():
        print(f"  {kind}: {count}")
    print(f"wrote {', '.join(map(str, written))}")


if __name__ == "__main__":
    run_main(main)
