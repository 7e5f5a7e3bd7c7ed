"""What every test gets: quiet TensorFlow, fixed seeds, and the real photographs where they are."""

import os
import random
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run; no deadline, because a first call traces a graph.
hypothesis.settings.register_profile("tfhuber", derandomize=True, deadline=None)
hypothesis.settings.load_profile("tfhuber")


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Seeds the global generators before each test, so that its order doesn't matter."""
    random.seed(0)
    np.random.seed(0)
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.random.set_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs; skips where it is absent."""
    folder = Path(os.environ.get("TFHUBER_SHARED_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real photographs at {folder} (set TFHUBER_SHARED_DATA to their folder)")
    return folder
