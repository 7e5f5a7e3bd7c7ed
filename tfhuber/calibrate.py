"""Calibrate a run: `python -m tfhuber.calibrate --run DIR [--split calibration]`.

Fits how far the run's uncertainty is from what photographs that it was not trained on show, for each way
to predict (none, mean, ml), and writes it to `DIR/calibration.json`, with radii whose coverage is
guaranteed. Prints how the run does without and with it, on the half of the photographs that nothing was
fitted to. `tfhuber.evaluate` then uses it.
"""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module
from tfhuber.console.table import aligned

if TYPE_CHECKING:
    from tfhuber.calibration import abstention, model, run_calibration
else:
    abstention = lazy_module("tfhuber.calibration.abstention")
    model = lazy_module("tfhuber.calibration.model")
    run_calibration = lazy_module("tfhuber.calibration.run_calibration")

__all__ = ["main"]

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.calibrate", description=__doc__)
    parser.add_argument("--run", required=True, help="a directory that tfhuber.train wrote")
    parser.add_argument("--data", help="the converted data set (default: the run's)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--split", default="calibration", help="of photographs not trained on (calibration)"
    )
    which.add_argument(
        "--folds", help="a directory of tfhuber.crossfit instead: no photograph is spared"
    )
    parser.add_argument("--checkpoint", choices=("latest", "best"), default="latest")
    parser.add_argument(
        "--level",
        type=_level,
        action="append",
        default=[],
        metavar="P",
        help="a probability for which radii are wanted, beside 0.5, 0.8, 0.9, 0.95 and 0.99",
    )
    _add_aims(parser)
    arguments = parser.parse_args()
    if arguments.folds and arguments.data:
        raise ValueError("--folds are of a data set of their own; leave out --data")

    import_tensorflow()
    calibration, checks = run_calibration.calibrate_run(
        Path(arguments.run),
        data=arguments.data,
        split=arguments.split,
        folds=Path(arguments.folds) if arguments.folds else None,
        checkpoint=arguments.checkpoint,
        levels=sorted({*LEVELS, *arguments.level}),
        aims=abstention.Aims(arguments.false_alarms, arguments.tolerance, arguments.risk),
    )
    print(_table(checks))
    for tta, signature in calibration.signatures.items():
        print(f"{tta}: {_kept(signature)}")
        print(f"{tta}: {_promises(signature)}")
        print(f"{tta}: {_abstains(signature)}")
        if signature.joint:
            print(
                f"{tta}: landmarks together are {signature.joint.gain:.1f} nats an object likelier"
            )
    source = calibration.source
    print(
        f"{Path(arguments.run) / model.FILE}: from {source.photographs} photographs with {source.labels:,} "
        "labels, half to fit to and half to promise by"
    )
    return 0


def _add_aims(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tolerance",
        type=_level,
        default=0.05,
        help="an error beyond this part of the network crop's side is a gross one (0.05)",
    )
    parser.add_argument(
        "--risk",
        type=_level,
        default=0.1,
        help="the largest share of gross errors among reliable landmarks, with 95 %% confidence (0.1)",
    )
    parser.add_argument(
        "--false-alarms",
        type=_level,
        default=0.02,
        help="the rate of objects like these that may be called foreign (0.02)",
    )


def _level(text: str) -> float:
    level = float(text)
    if not 0 < level < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text}")
    return level


def _table(checks: "dict[str, tuple[run_calibration.Check, run_calibration.Check]]") -> str:
    rows = [["tta", "", "NLL", *(f"{100 * level:g} %" for level in LEVELS)]]
    for tta, both in checks.items():
        for name, check in zip(("raw", "calibrated"), both, strict=True):
            inside = [f"{100 * check.coverage[level]:.1f}" for level in LEVELS]
            rows.append([tta, name, f"{check.nll:.3f}", *inside])
    return aligned(rows, right=range(2, len(rows[0])))


def _kept(signature: "model.Signature") -> str:
    kept = [step.name for step in signature.tried[1:] if step.kept]
    law = signature.family + (f" {signature.delta:.3g}" if signature.family == "huber" else "")
    alike = (
        "" if signature.correlation is None else f", views correlate {signature.correlation:.2f}"
    )
    return f"kept {', '.join(kept) or 'nothing'}; law {law}{alike}"


def _promises(signature: "model.Signature") -> str:
    def text(radius: float | None) -> str:
        return "none" if radius is None else f"{radius:.2f}"

    regions = [
        f"{100 * region.level:g} % {text(region.pooled)} (all at once {text(region.simultaneous)})"
        for region in signature.radii
    ]
    few = any(None in (region.pooled, region.simultaneous) for region in signature.radii)
    note = f"; none: {signature.promised_by} photographs are too few to promise that" if few else ""
    return f"guaranteed radii {', '.join(regions)}{note}"


def _abstains(signature: "model.Signature") -> str:
    aims, n = signature.abstention, signature.promised_by
    assert aims is not None  # which every calibration has that was just made
    reliable = f"reliable from a probability of {aims.least_probability or 0:.2f} on"
    if aims.least_probability is None:
        fewest = abstention.fewest_photographs(aims.risk, aims.confidence)
        reliable = f"no landmark called reliable: not to be promised by {n} photographs"
        reliable += f", of which it takes at least {fewest}" if n < fewest else ""
    foreign = f"foreign from a size of {aims.largest_size or 0:.2f} on"
    if aims.largest_size is None:
        fewest = math.ceil(1 / aims.false_alarms) - 1
        foreign = f"nothing called foreign: it takes {fewest} photographs, not {n}"
    return (
        f"{reliable} (errors beyond {aims.tolerance:g} of the crop's side: at most "
        f"{100 * aims.risk:g} %, {100 * aims.confidence:g} % sure); {foreign} "
        f"(false alarms: at most {100 * aims.false_alarms:g} %)"
    )


if __name__ == "__main__":
    run_main(main)
