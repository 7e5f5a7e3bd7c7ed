"""Where a run's numbers come from: versions, commit, machine and data, as `run.json` keeps them."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import tfhuber
from tfhuber.console.cpus import available_cpus, uses_onednn
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    import tensorflow as tf

    from tfhuber.data import records
else:
    records = lazy_module("tfhuber.data.records")
    tf = lazy_module("tensorflow")

__all__ = ["describe", "installed_version"]

PACKAGES = ("tensorflow", "keras", "keras-hub", "tensorflow-probability", "numpy")

# Git answers in milliseconds; on a network drive that hangs, a run starts without its answer.
_GIT_SECONDS = 10


def describe(data_directory: str | Path) -> dict:
    """Return what a run must be known by to be repeated, and nothing that names its user or machine.

    Args:
      data_directory: the converted data set.

    Returns:
      A dict of what JSON can hold:
      `versions`: of Python, TensorFlow and others that decide the numbers; None if not installed.
      `commit`: `sha` of the source code's Git commit, and `modified`, whether a file under version
        control differs from it; None where Git can't tell.
      `host`: the number of `cpus` that this process may use, the names of the `devices`, and whether
        TensorFlow was told to use `onednn`, whose sums are rounded in another order.
      `data`: the `landmark_set`'s name, and `sha256`, the checksum that the manifest ends with.

    Raises:
      ValueError: if the directory holds no converted data set.
    """
    manifest = records.read_manifest(data_directory)
    return {
        "versions": _versions(),
        "commit": _commit(Path(__file__)),
        "host": {
            "cpus": available_cpus(),
            "devices": _device_names(),
            "onednn": uses_onednn(),
        },
        "data": {
            "landmark_set": manifest["landmark_set"].get("name"),
            "sha256": manifest.get("sha256"),
        },
    }


def installed_version(package: str) -> str | None:
    """Return the version of an installed package without importing it; None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> dict[str, str | None]:
    own = {"python": platform.python_version(), "tfhuber": tfhuber.__version__}
    return own | {package: installed_version(package) for package in PACKAGES}


def _commit(file: Path) -> dict[str, str | bool | None]:
    """Return the commit that a source file is of; not of a repository that it merely lies in."""
    tracked = _git(file.parent, "ls-files", "--error-unmatch", file.name) is not None
    sha = _git(file.parent, "rev-parse", "--verify", "HEAD") if tracked else None
    changes = _git(file.parent, "status", "--porcelain", "--untracked-files=no") if sha else None
    return {"sha": sha, "modified": None if changes is None else changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what Git prints; None if it fails, takes too long or isn't there."""
    # A hook's GIT_DIR would point elsewhere; and looking must not lock the repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _device_names() -> list[str]:
    """Return the processor and the GPUs, as their makers call them."""
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [_processor(), *(each.get("device_name", "GPU") for each in details)]


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
