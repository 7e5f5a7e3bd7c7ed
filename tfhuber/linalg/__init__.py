"""Symmetric positive definite matrices: the spectral map, and small-matrix algebra."""
