"""Whitened errors drawn from a radial law."""

import math

import numpy as np

_GRID = np.concatenate([np.linspace(0, 10, 20_001), np.geomspace(10.01, 1e4, 5000)])


def draw(law, shape, rng):
    """Errors [*shape, 2] of a law, by inverting its CDF on a grid."""
    radius = np.interp(rng.random(shape), law.cdf(_GRID), _GRID)
    angle = rng.uniform(0, 2 * math.pi, shape)
    return radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
