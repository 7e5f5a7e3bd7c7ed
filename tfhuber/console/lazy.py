"""Modules that are imported when they are first used, so that commands start without TensorFlow."""

import importlib
from types import ModuleType
from typing import Any

__all__ = ["lazy_module"]


class _LazyModule(ModuleType):
    """A stand-in that imports the module at the first use of one of its names, and passes names through."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(importlib.import_module(self.__name__), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(importlib.import_module(self.__name__), name)


def lazy_module(name: str) -> Any:
    """Return a stand-in for the module `name`, which is imported when a name in it is first used.

    TensorFlow takes seconds to import, and `--help` or a Beam worker needs none of it. Type checkers and
    the import contract see the module where it is imported for them:

        if TYPE_CHECKING:
            from tfhuber.training import trainer
        else:
            trainer = lazy_module("tfhuber.training.trainer")

    >>> lazy_module("math").floor(2.5)
    2
    """
    return _LazyModule(name)
