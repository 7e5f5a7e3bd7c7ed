"""Calibrated cameras: where they see a point of space, and where a point is that several of them see."""
