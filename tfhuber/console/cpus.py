"""What TensorFlow may use of this machine's processors."""

import os

__all__ = ["available_cpus", "uses_onednn"]


def available_cpus() -> int:
    """Return how many processors this process may use; where the system cannot tell, all that there are."""
    if hasattr(os, "sched_getaffinity"):  # macOS has none.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def uses_onednn() -> bool:
    """Return whether TensorFlow is told to compute with oneDNN, as `import tfhuber` does by default."""
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower() in ("1", "true")
