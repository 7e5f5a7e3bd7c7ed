"""Timing things in turns, so that what else a machine does slows all of them alike."""

import random
import statistics
import time
from collections.abc import Callable

from tfhuber.cli import progress

__all__ = ["TIMED", "Turn", "print_table", "ratio", "time_in_turns", "timed"]

UNTIMED, TIMED = 2, 5  # repeats in a turn; threads of the turn before may still spin in the first

Turn = Callable[[], list[float]]


def timed(step: Callable[[], object], repeats: int = TIMED) -> list[float]:
    """A turn: milliseconds of some repeats, after some that are not timed."""
    times = []
    for _ in range(UNTIMED + repeats):
        start = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - start))
    return times[UNTIMED:]


def time_in_turns(turns: dict[str, Turn], count: int, desc: str) -> dict[str, list[float]]:
    """Milliseconds of all repeats; in every round each has its turn, in another order."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    order, shuffle = list(turns), random.Random(0).shuffle
    for _ in progress(range(count), desc=desc, unit=" rounds"):
        shuffle(order)
        for name in order:
            times[name] += turns[name]()
    return times


def ratio(times: dict[str, list[float]], numerator: str, denominator: str) -> float:
    """Ratio of two steps' median times."""
    return statistics.median(times[numerator]) / statistics.median(times[denominator])


def print_table(times: dict[str, list[float]]) -> None:
    print(f"  {'':18}{'median':>12}{'fastest':>12}")
    for name, milliseconds in times.items():
        median, fastest = statistics.median(milliseconds), min(milliseconds)
        print(f"  {name:18}{median:9.2f} ms{fastest:9.2f} ms")
