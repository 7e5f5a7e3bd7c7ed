"""Find wrong labels: `python -m tfhuber.audit --run DIR [--split valid]`.

The run predicts a split that it was not trained on. A label is in doubt where it is likelier to be
anywhere on the object than from the predicted distribution, and a whole annotation where left and right
exchanged, points shifted by one, another place or another object explain it better. Writes, the most
suspicious first, `suspects.csv`, `suspects.png` and, for labelling tools, `suspects.json` to
`DIR/audit/SPLIT/`. docs/audit.md says more.
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
    from tfhuber.runs import load
else:
    label_files = lazy_module("tfhuber.audit.label_files")
    run_audit = lazy_module("tfhuber.audit.run_audit")
    corrected = lazy_module("tfhuber.calibration.corrected")
    dataset = lazy_module("tfhuber.data.dataset")
    overlay = lazy_module("tfhuber.drawing.overlay")
    load = lazy_module("tfhuber.runs.load")

__all__ = ["main"]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.audit", description=__doc__)
    parser.add_argument("--run", required=True, help="a directory that tfhuber.train wrote")
    parser.add_argument("--data", help="the converted data set (default: the run's)")
    parser.add_argument("--split", help="the split to look at (default: the run's, to evaluate on)")
    parser.add_argument("--checkpoint", choices=("latest", "best"), default="latest")
    parser.add_argument(
        "--uncalibrated", action="store_true", help="take the model without its calibration.json"
    )
    parser.add_argument("--output", help="where to write (default: RUN/audit/SPLIT)")
    arguments = parser.parse_args()

    import_tensorflow()
    run = Path(arguments.run)
    predictor, config = load.load_run(run, arguments.checkpoint), load.read_config(run)
    directory = arguments.data or config.data.directory
    name = arguments.split or config.data.evaluation_split
    split = dataset.open_split(directory, name)
    predictor, found = corrected.collect_corrected(
        run, predictor, split, calibrated=not arguments.uncalibrated
    )
    law = Law(predictor.options.family, predictor.options.delta)
    doubted = run_audit.suspects(found, law, predictor.landmark_set.mirror)
    output = Path(arguments.output) if arguments.output else run / "audit" / name
    written = [output / "suspects.csv"]
    run_audit.write_table(written[0], doubted, found, predictor.landmark_set.names)
    if doubted:
        written.append(output / "suspects.png")
        overlay.save_image(run_audit.sheet(doubted, predictor, split, found), written[1])
        written.append(output / "suspects.json")
        label_files.write_coco(written[-1], doubted, found, split)
        frames = output / "CollectedData_audit.csv"
        if label_files.write_dlc(frames, doubted, found, predictor.landmark_set.names):
            written.append(frames)
    _report(doubted, len(found.id), int((found.weights > 0).sum()), written)
    trained_on = Path(config.data.directory).resolve(), config.data.train_split
    if (Path(directory).resolve(), name) == trained_on:
        print("note: the run was trained on this split, and so believes its labels; choose another")
    return 0


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
