"""Landmarks and their ellipses on pictures."""
