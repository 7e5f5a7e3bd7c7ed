"""Results over several seeds: their mean and standard deviation."""

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from tfhuber.config.reference import flatten
from tfhuber.console.table import aligned

__all__ = ["Spread", "mean_and_deviation", "spread", "summarise", "table"]


class Spread(TypedDict):
    """A metric over the seeds: mean, standard deviation (None of a single value), values in their order."""

    mean: float
    std: float | None
    values: list[float]


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation (of the sample, n - 1) of a metric.

    Example:
      >>> spread([4.0, 5.0, 6.0])
      {'mean': 5.0, 'std': 1.0, 'values': [4.0, 5.0, 6.0]}
    """
    with np.errstate(invalid="ignore"):  # a slope may be infinite
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "values": list(values)}


def summarise(results: Sequence[dict]) -> dict[str, Spread]:
    """Return each measured metric over several runs, by dotted keys, without counts and texts.

    Args:
      results: what `metrics.json` holds, a run each. A metric that one of them lacks is left out.
    """
    flat = [flatten(each) for each in results]
    return {
        name: spread([each[name] for each in flat])
        for name in flat[0]
        if all(isinstance(each.get(name), float) for each in flat)
    }


def table(summary: Mapping[str, Spread]) -> str:
    """Return a summary as text, a line each metric: mean, deviation, and the values in parentheses."""
    return aligned(
        [
            (
                name,
                mean_and_deviation(each),
                f"({', '.join(f'{value:.5g}' for value in each['values'])})",
            )
            for name, each in summary.items()
        ]
    )


def mean_and_deviation(each: Spread) -> str:
    """Return both as text, with as many decimals as two digits of the deviation need.

    Example:
      >>> mean_and_deviation(spread([4.512, 4.498, 4.551]))
      '4.520 +- 0.027'
    """
    mean, std = each["mean"], each["std"]
    if not std or not math.isfinite(std):
        return f"{mean:.5g}" if std is None else f"{mean:.5g} +- {std:g}"
    decimals = max(0, 1 - math.floor(math.log10(std)))
    return f"{mean:.{decimals}f} +- {std:.{decimals}f}"
