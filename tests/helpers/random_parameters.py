"""Random parameters of elliptical distributions."""

import numpy as np


def random_parameters(d, batch=(), seed=0, dtype="float64"):
    """loc [*batch, d] and precision factors with eigenvalues from 0.5 to 4."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(*batch, d, d)))
    eigenvalues = np.exp(rng.uniform(np.log(0.5), np.log(4.0), size=(*batch, 1, d)))
    factor = (q * eigenvalues) @ np.swapaxes(q, -1, -2)
    return rng.normal(size=(*batch, d)).astype(dtype), factor.astype(dtype)
