"""The law's constants from samples, and the energy's minimum, reached by steps that only lower it."""

import numpy as np
import pytest
from scipy import optimize

from tfhuber.drawing.ellipses import kappa
from tfhuber.tracking.law import huber_law, measurement_weight, residual_radius


def huber_radii(delta, dimensions, count=400_000, seed=0):
    r = np.linspace(0, 60 / min(delta, 1), 600_001)
    density = r ** (dimensions - 1) * np.exp(
        -np.where(r < delta, r * r / 2, delta * (r - delta / 2))
    )
    total = np.cumsum(density)
    return np.interp(np.random.default_rng(seed).random(count), total / total[-1], r)


@pytest.mark.parametrize(("delta", "dimensions"), [(0.5, 2), (1.0, 2), (2.0, 2), (1.0, 3)])
def test_what_is_counted_is_the_fisher_information(delta, dimensions):
    """From 400,000 samples, whose means are right to 1 %: of E[w] precision is left E[rho'^2] kappa / d."""
    law = huber_law(delta, dimensions)
    radius = huber_radii(delta, dimensions)
    variance = (radius**2).mean() / dimensions
    fisher = np.square(np.minimum(radius, delta)).mean() / dimensions * variance
    scaled = radius / np.sqrt(variance) * np.sqrt(law.precision)
    counted = law.precision * np.minimum(1, law.knee / scaled).mean()
    assert counted == pytest.approx(fisher, rel=0.01)
    if dimensions == 2:
        assert variance == pytest.approx(kappa("huber", delta), rel=0.01)
    # The same energy but for its scale: the knee is at the same error.
    assert law.knee / np.sqrt(law.precision) == pytest.approx(delta / np.sqrt(variance), rel=0.01)


def test_an_infinite_knee_is_gausss_law():
    for delta in (1e3, np.inf):
        assert (huber_law(delta, 2).precision, huber_law(delta, 2).knee) == (1.0, np.inf)
    assert huber_law(29, 2).precision == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="delta must be positive"):
        huber_law(0, 2)


def problems(dimensions, count=40, seed=1):
    rng = np.random.default_rng(seed)
    halves = rng.normal(0, 1, (2, count, dimensions, dimensions))
    scales = np.exp(rng.uniform(-3, 3, (2, count, 1, 1)))
    predicted, core = scales * (halves @ halves.mT + 0.05 * np.eye(dimensions))
    return rng.normal(0, 12, (count, dimensions)), predicted, core


def weights(innovation, predicted, core, knee, **options):
    left = residual_radius(np.linalg.inv(predicted + core), innovation, core)
    return measurement_weight(innovation, predicted, core, knee, left, **options)


def energy(move, innovation, predicted, core, knee):
    rest = innovation - move
    r = np.sqrt(rest @ np.linalg.solve(core, rest))
    return move @ np.linalg.solve(predicted, move) / 2 + (
        r * r / 2 if r < knee else knee * (r - knee / 2)
    )


@pytest.mark.parametrize("dimensions", [2, 3])
def test_each_step_lowers_the_energy_to_its_minimum(dimensions):
    knee = 0.8
    innovation, predicted, core = problems(dimensions)
    before = None
    for steps in (0, 1, 2, 3, 20):
        weight = weights(innovation, predicted, core, knee, tolerance=1e-12, steps=steps)
        gain = predicted @ np.linalg.inv(predicted + core / weight[:, None, None])
        moves = (gain @ innovation[..., None])[..., 0]
        now = [energy(*row, knee) for row in zip(moves, innovation, predicted, core, strict=True)]
        if before is not None:
            assert (np.array(now) <= before * (1 + 1e-12)).all()
        before = np.array(now)
    for n, found in enumerate(before):
        row = innovation[n], predicted[n], core[n], knee
        best = optimize.minimize(
            energy, moves[n], row, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
        )
        assert found <= best.fun * (1 + 1e-9)


def test_the_usual_tolerance_is_enough():
    innovation, predicted, core = problems(2)
    usual = weights(innovation, predicted, core, 0.8)
    exact = weights(innovation, predicted, core, 0.8, tolerance=1e-14, steps=100)
    np.testing.assert_allclose(usual, exact, rtol=0.01)
    assert usual.min() < 0.1 and usual.max() == 1
