"""Projective maps of points, covariances and images, and the square around a box."""
