"""The commands as one: `tfhuber COMMAND ...`, or `python -m tfhuber COMMAND ...`."""

import ast
import difflib
import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from tfhuber import __version__
from tfhuber.console.cli import run_main

__all__ = ["COMMANDS", "MODULES", "help_text", "main"]

# A command has the name of its module, unless another has it already. Named as text, because these
# stand above this package.
MODULES = (
    "pipelines.sample_data",
    "pipelines.sample_film",
    "pipelines.make_tfrecords",
    "pipelines.verify",
    "pipelines.contact_sheet",
    "pipelines.predict",
    "tfhuber.train",
    "tfhuber.crossfit",
    "tfhuber.calibrate",
    "tfhuber.evaluate",
    "tfhuber.audit",
    "tfhuber.export",
    "tfhuber.predict",
    "tfhuber.compare",
    "tfhuber.seeds",
    "tfhuber.launch",
    "tfhuber.config",
    "tfhuber.doctor",
    "tfhuber.graph_lint",
    "tfhuber.reproduce",
    "tfhuber.figures",
    "tfhuber.track",
    "tfhuber.triangulate",
    "serving.local_server",
    "serving.client",
)
_RENAMED = {"pipelines.predict": "predict_all"}
COMMANDS = {_RENAMED.get(module, module.rpartition(".")[2]): module for module in MODULES}


def main() -> None:
    """Run the command that the first argument names, with the arguments after it."""
    run_main(_dispatch)


def _dispatch() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        del sys.argv[1]
        runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)
    elif name in ("-h", "--help"):
        print(help_text())
    elif name == "--version":
        print(f"tfhuber {__version__}")
    else:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise ValueError(f"there is no command {name!r}; {hint}`tfhuber --help` lists them all")


def help_text() -> str:
    """Return the commands, each with the first line of its module's docstring."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {_summary(module)}" for name, module in COMMANDS.items()]
    usage = "usage: tfhuber COMMAND [ARGUMENTS]\n       tfhuber COMMAND --help\n       tfhuber --version"
    return "\n".join([usage, "", "commands:", *lines])


def _summary(module: str) -> str:
    """Return what a module says of itself in its first line, read without importing it."""
    package, _, name = module.partition(".")
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).with_name(f"{name}.py")
    if not file.is_file():
        file = file.with_suffix("") / "__main__.py"
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return re.sub(r": `python -m .*|\.$", "", docstring.partition("\n")[0])


if __name__ == "__main__":
    main()
