"""Results over several seeds: their mean and standard deviation."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfhuber.config.reference import flatten

__all__ = ["Spread", "mean_and_deviation", "spread", "summarise", "table"]


# A metric over the seeds: its `mean`, its standard deviation `std`, and its `values` in their order.
Spread = dict[str, float | list[float] | None]


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation (of the sample, n - 1) of a metric; no deviation of a single value.

    Example:
      >>> spread([4.0, 5.0, 6.0])
      {'mean': 5.0, 'std': 1.0, 'values': [4.0, 5.0, 6.0]}
    """
    with np.errstate(invalid="ignore"):  # a slope may be infinite
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "values": list(values)}


def summarise(results: Sequence[Mapping]) -> dict[str, Spread]:
    """Each measured metric over several runs, by dotted keys; counts and texts are left out.

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
    """A summary as aligned text, a line each metric: mean, deviation, and the values in parentheses."""
    texts = {name: mean_and_deviation(each) for name, each in summary.items()}
    name_width, width = (max(map(len, column)) for column in (texts, texts.values()))
    return "\n".join(
        f"{name:<{name_width}}  {texts[name]:<{width}}  "
        f"({', '.join(f'{value:.5g}' for value in each['values'])})"
        for name, each in summary.items()
    )


def mean_and_deviation(each: Spread) -> str:
    """Both as text, with as many decimals as two digits of the deviation need.

    Example:
      >>> mean_and_deviation(spread([4.512, 4.498, 4.551]))
      '4.520 +- 0.027'
    """
    mean, std = each["mean"], each["std"]
    if not std or not math.isfinite(std):
        return f"{mean:.5g}" if std is None else f"{mean:.5g} +- {std:g}"
    decimals = max(0, 1 - math.floor(math.log10(std)))
    return f"{mean:.{decimals}f} +- {std:.{decimals}f}"
