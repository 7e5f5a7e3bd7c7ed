"""Drawn faces and figures with known label noise."""
