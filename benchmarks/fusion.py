"""Fusion of two views against a loop over landmarks, and against scipy: `python -m benchmarks.fusion`.

Part one times `fusion.fuse` as a graph on 2 views x 98 landmarks x 256 images, in one call, against the
plain reading of supplement E: a Python loop over the landmarks with 20 majorise-minimise steps each, in
numpy. Both have one thread, and take turns, so that a busy machine slows both alike. Part two compares
the fused points with the lowest that scipy finds, for every family and for views made to be hard.

The exit status is 1 if fusion is not 300 times faster, or not within 1e-5 of scipy's minimiser.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.optimize

from tfhuber.console.cli import import_tensorflow, progress, run_main
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    import tensorflow as tf

    from tfhuber.distributions import fusion, radial
else:
    tf = lazy_module("tensorflow")
    fusion = lazy_module("tfhuber.distributions.fusion")
    radial = lazy_module("tfhuber.distributions.radial")

__all__ = ["main"]

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]
Case = tuple[str, np.ndarray, np.ndarray, "radial.RadialEnergy"]

LANDMARKS, STEPS = 98, 20
LEAST_RATIO, MOST_DISTANCE = 300, 1e-5


def main() -> int:
    """Run both parts, print their tables and return whether the bounds hold, as an exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256, help="images of two views each")
    parser.add_argument("--rounds", type=int, default=5, help="parts in which the loop is timed")
    parser.add_argument("--points", type=int, default=40, help="points a family given to scipy")
    args = parser.parse_args()
    for name in ("images", "rounds", "points"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}.")
    import_tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    loop, graph = time_both(args.images, args.rounds)
    ratio = loop / graph
    print(f"2 views x {LANDMARKS} landmarks x {args.images} images, Huber's energy, one thread")
    print(f"  {'Python loop, 20 steps each':30}{1000 * loop:10.1f} ms")
    print(f"  {'fuse, to the end':30}{1000 * graph:10.1f} ms")
    print(f"  {ratio:.0f} times faster (at least {LEAST_RATIO} are required)")

    print("\nDistance to scipy's minimiser, in fused standard deviations")
    print(f"  {'':42}{'points':>10}{'largest':>12}{'energy above':>14}")
    worst = 0.0
    for name, loc, factor, energy in [*random_cases(args.points), *hard_cases()]:
        distance, excess = compare(loc, factor, energy)
        worst = max(worst, distance)
        print(f"  {name:42}{loc.shape[1]:10}{distance:12.1e}{excess:14.1e}")
    print(f"  largest distance {worst:.1e} (at most {MOST_DISTANCE} is allowed)")
    return 0 if ratio >= LEAST_RATIO and worst <= MOST_DISTANCE else 1


def time_both(images: int, rounds: int) -> tuple[float, float]:
    """Return the seconds that the loop takes for all landmarks, and the median of `fuse`."""
    energy = radial.Huber(1.0)
    loc, factor = random_views(energy, 2, images * LANDMARKS, seed=0)
    shape = [2, images, LANDMARKS]
    tensors = [
        tf.constant(loc.reshape(*shape, 2), tf.float32),
        tf.constant(factor.reshape(*shape, 2, 2), tf.float32),
    ]
    graph = tf.function(lambda loc, factor: fusion.fuse(loc, factor, energy))
    for _ in range(2):
        graph(*tensors)
    loop_seconds, graph_seconds = 0.0, []
    for part in progress(np.array_split(np.arange(loc.shape[1]), rounds), desc="time", unit="part"):
        start = time.perf_counter()
        for n in part:
            fuse_by_loop(loc[:, n], factor[:, n], 1.0)
        loop_seconds += time.perf_counter() - start
        for _ in range(5):
            start = time.perf_counter()
            graph(*tensors)[0].numpy()
            graph_seconds.append(time.perf_counter() - start)
    return loop_seconds, statistics.median(graph_seconds)


def fuse_by_loop(mu: np.ndarray, factor: np.ndarray, delta: float) -> np.ndarray:
    """Fuse as supplement E stands: one point [2] from views [V, 2] and [V, 2, 2]."""
    precision = factor @ factor
    pull = np.einsum("vij,vj->vi", precision, mu)
    y = np.linalg.solve(precision.sum(axis=0), pull.sum(axis=0))
    for _ in range(STEPS):
        radius = np.linalg.norm(np.einsum("vij,vj->vi", factor, y - mu), axis=-1)
        weight = delta / np.maximum(radius, delta)
        y = np.linalg.solve(np.einsum("v,vij->ij", weight, precision), weight @ pull)
    return y


def random_views(
    energy: "radial.RadialEnergy",
    views: int,
    points: int,
    seed: int,
    least: float = 0.1,
    most: float = 2.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw views [V, N, 2] of points in a crop of 224 pixels from distributions, and their factors.

    Each axis of a factor [V, N, 2, 2] is between `least` and `most`, per pixel.
    """
    rng = np.random.default_rng(seed)
    truth = random_truth(points, seed)
    factor = random_matrices(
        rng, np.exp(rng.uniform(np.log(least), np.log(most), (views, points, 2)))
    )
    radius = energy.sample([views, points], 2, seed=seed, dtype=tf.float64).numpy()
    angle = rng.uniform(0, 2 * np.pi, (views, points))
    noise = radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return truth + np.linalg.solve(factor, noise[..., None])[..., 0], factor


def random_truth(points: int, seed: int) -> np.ndarray:
    """Draw the points [N, 2] behind `random_views` of that seed."""
    return np.random.default_rng([seed, 1]).uniform(0, 223, (points, 2))


def random_matrices(rng: np.random.Generator, axes: np.ndarray) -> np.ndarray:
    """Draw symmetric matrices [..., 2, 2] with these eigenvalues [..., 2], in random directions."""
    angle = rng.uniform(0, np.pi, axes.shape[:-1])
    c, s = np.cos(angle), np.sin(angle)
    q = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    return (q * axes[..., None, :]) @ np.swapaxes(q, -1, -2)


def random_cases(points: int) -> Iterator[Case]:
    """Yield name, locations, factors and energy: views of each family, drawn from it."""
    hubers = radial.Huber(1.0), radial.Huber(0.01)
    for energy in (*hubers, radial.Gauss(), radial.Laplace(), radial.Charbonnier()):
        for views in (2, 5):
            yield f"{energy!r}, {views} views", *random_views(energy, views, points, seed=1), energy


def hard_cases() -> Iterator[Case]:
    """Yield cases in which a plain iteration stalls, cycles, divides by zero or creeps."""
    laplace, sharp = radial.Laplace(), radial.Huber(1e-3)
    rng = np.random.default_rng(2)
    eye = np.eye(2)
    for energy in (radial.Huber(1.0), sharp, laplace, radial.Charbonnier()):
        name = repr(energy)
        loc, factor = random_views(energy, 3, 10, seed=3)
        loc[2] += 1e4
        yield f"{name}, an outlier", loc, factor, energy
        thin = random_matrices(rng, np.broadcast_to([30.0, 0.003], (2, 10, 2)))
        yield f"{name}, thin views", rng.uniform(0, 223, (2, 10, 2)), thin, energy
        far = np.array([[[0.0, 0.0]], [[300.0, 40.0]]])
        surer = np.array([1.05, 1.0])[:, None, None, None] * eye
        yield f"{name}, far, hardly surer", far, surer, energy
        loc, factor = random_views(energy, 1, 10, seed=4)
        yield f"{name}, 3 views alike", np.repeat(loc, 3, 0), np.repeat(factor, 3, 0), energy
    # Weiszfeld's trap: three views around a fourth, which holds the point or all but holds it.
    around = np.array([[0.0, 3.0], [-2.0, -1.0], [2.5, -1.5], [0.0, 0.0]])
    for pull in (0.5, 1.0001, 1.01):
        unit = around[:3] / np.linalg.norm(around[:3], axis=-1, keepdims=True)
        scale = np.array([*[pull / np.linalg.norm(unit.sum(0))] * 3, 1.0])
        factor = scale[:, None, None, None] * eye
        yield f"Laplace(), a view pulled by {pull}", around[:, None], factor, laplace
        yield f"Huber(delta=0.001), a view pulled by {pull}", around[:, None], factor, sharp


def compare(
    loc: np.ndarray, factor: np.ndarray, energy: "radial.RadialEnergy"
) -> tuple[float, float]:
    """Return the largest distance of the fused points to scipy's, and how much higher they lie.

    The distance is `|F (y - y')| / sqrt(kappa)`: in standard deviations of the fused distribution.
    """
    point, fused = (x.numpy() for x in fusion.fuse(loc, factor, energy))
    distances, excess = [], []
    for n in range(loc.shape[1]):
        objective = objective_of(loc[:, n], factor[:, n], energy)
        best = minimise(objective, [*loc[:, n], loc[:, n].mean(axis=0)])
        distances.append(np.linalg.norm(fused[n] @ (point[n] - best)) / energy.kappa(2) ** 0.5)
        excess.append(objective(point[n])[0] - objective(best)[0])
    return max(distances), max(excess)


def objective_of(mu: np.ndarray, factor: np.ndarray, energy: "radial.RadialEnergy") -> Objective:
    """Return eq. 130 and its gradient in NumPy for one point, written anew."""
    name, delta = type(energy).__name__, getattr(energy, "delta", 1.0)
    rho, slope = {
        "Huber": (
            lambda r: np.where(r <= delta, r**2 / 2, delta * (r - delta / 2)),
            lambda r: np.minimum(r, delta),
        ),
        "Gauss": (lambda r: r**2 / 2, lambda r: r),
        "Laplace": (lambda r: r, lambda r: np.sign(r)),
        "Charbonnier": (
            lambda r: r**2 / (np.sqrt(r**2 + 1) + 1),
            lambda r: r / np.sqrt(r**2 + 1),
        ),
    }[name]

    def objective(y: np.ndarray) -> tuple[float, np.ndarray]:
        residual = np.einsum("vij,vj->vi", factor, y - mu)
        r = np.sqrt((residual**2).sum(axis=-1))
        weight = slope(r) / np.maximum(r, 1e-300)
        return rho(r).sum(), np.einsum("v,vij,vi->j", weight, factor, residual)

    return objective


def minimise(objective: Objective, starts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the lowest point that scipy finds from any start, without and then with the gradient."""
    found = list(starts)
    for start in starts:
        y = scipy.optimize.minimize(lambda y: objective(y)[0], start, method="Nelder-Mead").x
        options = {"gtol": 1e-12}
        found += [y, scipy.optimize.minimize(objective, y, jac=True, options=options).x]
    return min(found, key=lambda y: objective(y)[0])


if __name__ == "__main__":
    run_main(main)
