"""Builds the package; everything about it is declared in pyproject.toml."""

from setuptools import setup

setup()
