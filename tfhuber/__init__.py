"""Landmark regression with full, robust uncertainty: Huber distributions in TensorFlow and Keras."""

import importlib

__all__ = [
    "Charbonnier",
    "Elliptical",
    "Gauss",
    "Huber",
    "Laplace",
    "MultivariateHuber",
    "SPDMatrix",
    "fuse",
]

__version__ = "0.1.0"

_HOME = {
    "Charbonnier": "tfhuber.distributions.radial",
    "Elliptical": "tfhuber.distributions.elliptical",
    "Gauss": "tfhuber.distributions.radial",
    "Huber": "tfhuber.distributions.radial",
    "Laplace": "tfhuber.distributions.radial",
    "MultivariateHuber": "tfhuber.distributions.elliptical",
    "SPDMatrix": "tfhuber.linalg.spd",
    "fuse": "tfhuber.distributions.fusion",
}


def __getattr__(name: str) -> object:
    # TensorFlow takes seconds to import; `--help` and the Beam workers do without it.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
