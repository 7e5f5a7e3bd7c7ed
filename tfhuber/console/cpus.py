"""How many processors this process may use."""

import os

__all__ = ["available_cpus"]


def available_cpus() -> int:
    """Return the number of processors that this process may run on, or of all where the system cannot tell."""
    if hasattr(os, "sched_getaffinity"):  # macOS has none.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
