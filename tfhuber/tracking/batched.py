"""Small matrices, many at a time: symmetric ones of 2 or 3 dimensions, without LAPACK's calls for each."""

import numpy as np

__all__ = ["apply", "inverse", "quadratic", "square_root"]


def inverse(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the inverses and determinants of symmetric matrices [..., d, d] with d of 1, 2 or 3."""
    d = matrix.shape[-1]
    if d == 1:
        return 1 / matrix, matrix[..., 0, 0]
    out = np.empty(matrix.shape)
    if d == 2:
        a, b, c = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
        determinant = a * c - b * b
        out[..., 0, 0], out[..., 1, 1] = c, a
        out[..., 0, 1] = out[..., 1, 0] = -b
    else:
        a, b, c = (matrix[..., 0, j] for j in range(3))
        e, f, i = matrix[..., 1, 1], matrix[..., 1, 2], matrix[..., 2, 2]
        out[..., 0, 0], out[..., 1, 1], out[..., 2, 2] = e * i - f * f, a * i - c * c, a * e - b * b
        out[..., 0, 1] = out[..., 1, 0] = c * f - b * i
        out[..., 0, 2] = out[..., 2, 0] = b * f - c * e
        out[..., 1, 2] = out[..., 2, 1] = b * c - a * f
        determinant = a * out[..., 0, 0] + b * out[..., 0, 1] + c * out[..., 0, 2]
    out /= determinant[..., None, None]
    return out, determinant


def apply(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return the products [..., e] of matrices [..., e, d] and vectors [..., d]."""
    return np.matmul(matrix, vector[..., None])[..., 0]


def quadratic(vector: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return v' matrix v [...] of vectors [..., d] and matrices [..., d, d]."""
    return np.einsum("...i,...i->...", vector, apply(matrix, vector))


def square_root(matrix: np.ndarray) -> np.ndarray:
    """Return the symmetric roots of symmetric positive semi-definite matrices [..., d, d]."""
    if matrix.shape[-1] == 2:
        a, b, c = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
        s = np.sqrt(np.maximum(a * c - b * b, 0))
        t = np.sqrt(np.maximum(a + c + 2 * s, np.finfo(np.float64).tiny))
        return (matrix + s[..., None, None] * np.eye(2)) / t[..., None, None]
    values, vectors = np.linalg.eigh(matrix)
    roots = np.sqrt(np.maximum(values, 0))
    return (vectors * roots[..., None, :]) @ vectors.swapaxes(-1, -2)
