"""Simulated films whose truth is known: a bias that persists, jitter, and stretches that are hidden."""

import numpy as np


def rotated(rng, deviation):
    """Covariances [..., 2, 2] with these deviations [..., 2] along axes in random directions, and roots."""
    angle = rng.uniform(0, np.pi, deviation.shape[:-1])
    c, s = np.cos(angle), np.sin(angle)
    q = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    root = (q * deviation[..., None, :]) @ q.mT
    return root @ root.mT, root


def film(frames, landmarks, *, process=0.05, share=0.8, time=30.0, hidden=0.0, seed=0):
    """Return truth [T, K, 2], its velocity, what is measured, and the covariances [T, K, 2, 2].

    Of a share `hidden` of the frames, in stretches of 25, deviations are six times as large.
    """
    rng = np.random.default_rng(seed)
    shape = frames, landmarks, 2
    # Exactly the noise of constant velocity over a step of 1: place and velocity are driven together.
    root = np.linalg.cholesky(np.array([[1 / 3, 1 / 2], [1 / 2, 1]]) * process)
    drive = rng.standard_normal((*shape, 2)) @ root.T
    velocity = np.cumsum(drive[..., 1], 0)
    truth = 200 + np.cumsum(
        np.concatenate([np.zeros((1, *shape[1:])), velocity[:-1]]) + drive[..., 0], 0
    )
    deviation = np.exp(rng.normal(1, 0.3, shape))
    blocks = rng.random((-(-frames // 25), landmarks)) < hidden
    deviation *= np.where(np.repeat(blocks, 25, 0)[:frames], 6.0, 1.0)[..., None]
    covariance, roots = rotated(rng, deviation)
    kept = np.exp(-1 / time)
    bias = np.empty(shape)
    bias[0] = rng.standard_normal(shape[1:])
    for t in range(1, frames):
        bias[t] = kept * bias[t - 1] + np.sqrt(1 - kept**2) * rng.standard_normal(shape[1:])
    error = np.sqrt(share) * bias + np.sqrt(1 - share) * rng.standard_normal(shape)
    return truth, velocity, truth + (roots @ error[..., None])[..., 0], covariance


def coverage(place, covariance, truth, square=4.6052):
    """The share of truth [..., d] within the ellipses of 90 %."""
    error = place - truth
    found = np.einsum("...i,...ij,...j->...", error, np.linalg.inv(covariance), error)
    return float((found < square).mean())


def rms(place, truth):
    return float(np.sqrt(np.square(place - truth).sum(-1).mean()))
