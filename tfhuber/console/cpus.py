"""How many processors this process may use."""

import os

__all__ = ["available_cpus"]


def available_cpus() -> int:
    """Return how many processors this process may use; where the system cannot tell, all that there are."""
    if hasattr(os, "sched_getaffinity"):  # macOS has none.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
