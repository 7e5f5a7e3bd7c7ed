"""Builds the package; pyproject.toml declares all of it but which folder becomes which package."""

from setuptools import find_packages, setup

PACKAGES = find_packages(include=["tfhuber*", "pipelines*", "serving*", "benchmarks*"])

# pyproject.toml alone cannot map a folder to a package of another name.
setup(packages=[*PACKAGES, "tfhuber.configs"], package_dir={"tfhuber.configs": "configs"})
