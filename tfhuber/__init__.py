"""Landmark regression with full, robust uncertainty: Huber distributions in TensorFlow and Keras."""

import importlib
import os

__all__ = [
    "Charbonnier",
    "Coverage",
    "DistributionHead",
    "Elliptical",
    "Gauss",
    "Huber",
    "Laplace",
    "MultivariateHuber",
    "NegativeLogLikelihood",
    "SPDMatrix",
    "distribution",
    "fuse",
    "joint_covariance",
    "load_distribution",
]

__version__ = "0.1.0"

_HOME = {
    "Charbonnier": "tfhuber.distributions.radial",
    "Coverage": "tfhuber.model.regression",
    "DistributionHead": "tfhuber.model.regression",
    "Elliptical": "tfhuber.distributions.elliptical",
    "Gauss": "tfhuber.distributions.radial",
    "Huber": "tfhuber.distributions.radial",
    "Laplace": "tfhuber.distributions.radial",
    "MultivariateHuber": "tfhuber.distributions.elliptical",
    "NegativeLogLikelihood": "tfhuber.model.regression",
    "SPDMatrix": "tfhuber.linalg.spd",
    "distribution": "tfhuber.model.regression",
    "fuse": "tfhuber.distributions.fusion",
    "joint_covariance": "tfhuber.saved_model.answer",
    "load_distribution": "tfhuber.saved_model.answer",
}


# TensorFlow reads this once, when it is imported. By itself it leaves oneDNN off where a CPU has no
# AVX512-VNNI, and trains two to five times slower there.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Likewise NumPy's OpenBLAS. Its threads spin while they wait: on two cores busy with other work, two took
# 150 times as long over matrices of 200 rows, the largest that there are here, as one alone.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def __getattr__(name: str) -> object:
    # TensorFlow takes seconds to import; `--help` and the Beam workers do without it.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
