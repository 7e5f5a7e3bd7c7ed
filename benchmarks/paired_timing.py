"""Timing things in turns, so that what else a machine does slows all of them alike."""

import random
import statistics
import time
from collections.abc import Callable
from itertools import chain

from tfhuber.console.cli import progress

__all__ = ["TIMED", "Times", "Turn", "print_table", "ratio", "summary", "time_in_turns", "timed"]

UNTIMED, TIMED = 2, 5  # repeats in a turn; threads of the turn before may still spin in the first

Turn = Callable[[], list[float]]
Times = dict[str, list[list[float]]]  # by step: the rounds, each with its repeats' milliseconds


def timed(step: Callable[[], object], repeats: int = TIMED) -> list[float]:
    """A turn: milliseconds of some repeats, after some that are not timed."""
    times = []
    for _ in range(UNTIMED + repeats):
        start = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - start))
    return times[UNTIMED:]


def time_in_turns(turns: dict[str, Turn], count: int, desc: str) -> Times:
    """Milliseconds of all repeats; in every round each has its turn, in another order."""
    times: Times = {name: [] for name in turns}
    order, shuffle = list(turns), random.Random(0).shuffle
    for _ in progress(range(count), desc=desc, unit=" rounds"):
        shuffle(order)
        for name in order:
            times[name].append(turns[name]())
    return times


def ratio(times: Times, numerator: str, denominator: str) -> float:
    """Ratio of two steps' times: the median over the rounds of the ratio of their medians in a round.

    What slows the machine for minutes slows both steps of a round, and so leaves their ratio alone.
    """
    pairs = zip(times[numerator], times[denominator], strict=True)
    return statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs)


def summary(rounds: list[list[float]]) -> tuple[float, float]:
    """Median and least of a step's milliseconds."""
    repeats = list(chain.from_iterable(rounds))
    return statistics.median(repeats), min(repeats)


def print_table(times: Times) -> None:
    print(f"  {'':18}{'median':>12}{'fastest':>12}")
    for name, rounds in times.items():
        median, fastest = summary(rounds)
        print(f"  {name:18}{median:9.2f} ms{fastest:9.2f} ms")
