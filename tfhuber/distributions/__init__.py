"""Radial energies, elliptical distributions and their fusion."""
