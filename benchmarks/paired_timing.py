"""Timing of steps in turns, so that what else a machine does slows all of them alike."""

import random
import statistics
import time
from collections.abc import Callable
from itertools import chain

from tfhuber.console.cli import progress

__all__ = [
    "REPEATS",
    "Times",
    "Turn",
    "median_and_least",
    "print_table",
    "ratio",
    "time_in_turns",
    "time_repeats",
]

WARM_UPS, REPEATS = 2, 5  # of a turn; threads of the turn before may still spin in the first

Turn = Callable[[], list[float]]
Times = dict[str, list[list[float]]]  # by step: the rounds, each with its repeats' milliseconds


def time_repeats(step: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Take a turn: return the milliseconds of some repeats, after some that are not timed."""
    times = []
    for _ in range(WARM_UPS + repeats):
        start = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - start))
    return times[WARM_UPS:]


def time_in_turns(turns: dict[str, Turn], count: int, desc: str) -> Times:
    """Return the milliseconds of all repeats; in every round each has its turn, in another order."""
    times: Times = {name: [] for name in turns}
    order, shuffle = list(turns), random.Random(0).shuffle
    for _ in progress(range(count), desc=desc, unit=" rounds"):
        shuffle(order)
        for name in order:
            times[name].append(turns[name]())
    return times


def ratio(times: Times, numerator: str, denominator: str) -> float:
    """Return the ratio of two steps' times: the median over the rounds of that of their medians.

    What slows the machine for minutes slows both steps of a round, and so leaves their ratio alone.
    """
    pairs = zip(times[numerator], times[denominator], strict=True)
    return statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs)


def median_and_least(rounds: list[list[float]]) -> tuple[float, float]:
    """Return the median and the least of a step's milliseconds."""
    repeats = list(chain.from_iterable(rounds))
    return statistics.median(repeats), min(repeats)


def print_table(times: Times) -> None:
    """Print the median and the least of each step's milliseconds."""
    print(f"  {'':18}{'median':>12}{'fastest':>12}")
    for name, rounds in times.items():
        median, fastest = median_and_least(rounds)
        print(f"  {name:18}{median:9.2f} ms{fastest:9.2f} ms")
