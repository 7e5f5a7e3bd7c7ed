"""Tracks: landmarks followed through a film, each frame trusted as far as its covariance says."""
