"""The API reference of the site, one page a package, and the list of the commands: hooks of mkdocs.

The pages are made while the site is built, so that they follow the packages. Modules without an
`__all__`, and commands, have no section.
"""

import ast
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import tfhuber
from tfhuber.__main__ import MODULES, help_text

ROOT = Path(__file__).resolve().parent.parent
TOPS = ("tfhuber", "pipelines", "serving")


class FencedExamples(griffe.Extension):
    """Marks the examples in docstrings as code, so that Markdown takes no list in them for a link."""

    def on_instance(self, *, obj: griffe.Object | griffe.Alias, **_: Any) -> None:
        """Put fences around every `>>>` and the lines up to the next empty one."""
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = re.sub(
                r"^( *)>>> .*(?:\n *\S.*)*",
                r"\1```pycon\n\g<0>\n\1```",
                obj.docstring.value,
                flags=re.M,
            )


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the reference to the navigation."""
    packages = [{package: f"reference/{package}.md"} for package in _packages()]
    pages: list[Any] = [{"Commands": "reference/commands.md"}, *packages]
    assert config.nav is not None
    config.nav.append({"Reference": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages themselves."""
    pages = {f"reference/{name}.md": _page(name, modules) for name, modules in _packages().items()}
    pages["reference/commands.md"] = f"# Commands\n\n```text\n{help_text()}\n```\n"
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def _packages() -> dict[str, list[str]]:
    """Return each package's modules that have something to say to a caller; both are sorted."""
    packages: dict[str, list[str]] = {}
    for path in sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        name = module.removesuffix(".__init__")
        if path.stem == "__main__" or name in MODULES or not _exports(path):
            continue
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        packages.setdefault(package, []).append(name)
    return packages


def _exports(path: Path) -> bool:
    """Return whether a module has an `__all__` that names something."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "__all__"
        and bool(ast.literal_eval(node.value))
        for node in tree.body
    )


def _page(package: str, modules: list[str]) -> str:
    sections = [f"::: {module}" for module in modules]
    if (
        package == "tfhuber"
    ):  # its names are imported when they are used, which reading does not show
        homes = tfhuber._HOME.items()
        sections.append("\n".join(f"- [`tfhuber.{name}`][{home}.{name}]" for name, home in homes))
    return "\n\n".join([f"# {package}", *sections]) + "\n"
