"""The configurations that come with the package, wherever it is installed."""

from pathlib import Path

__all__ = ["config_directory", "config_path", "shipped_configs"]

_PACKAGE = Path(__file__).resolve().parents[1]


def config_directory() -> Path:
    """Return the directory of the shipped configurations.

    A wheel holds it as `tfhuber/configs`; in a source tree it is `configs`, beside `tfhuber`.
    """
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def shipped_configs() -> list[str]:
    """Return what `config_path` finds from any directory, such as `configs/wflw.json`, sorted."""
    return sorted(f"configs/{path.name}" for path in config_directory().glob("*.json"))


def config_path(path: str | Path) -> Path:
    """Return `path`, or the shipped configuration that it names where there is no such file.

    Only `configs/NAME.json` names one. A path that leads nowhere is returned as it is.
    """
    path = Path(path)
    if path.exists() or path.as_posix() not in shipped_configs():
        return path
    return config_directory() / path.name
