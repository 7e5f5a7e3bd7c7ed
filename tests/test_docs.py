"""The documentation says what is so: commands and options exist, snippets run, lines are short."""

import argparse
import ast
import functools
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import tfhuber
from tfhuber.__main__ import COMMANDS, MODULES

ROOT = Path(__file__).resolve().parent.parent
MARKDOWN = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "serving/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
GUIDES = [path for path in MARKDOWN if path.name != "CHANGELOG.md"]
PACKAGES = ("tfhuber", "pipelines", "serving", "benchmarks")


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- form


@pytest.mark.parametrize("path", [*GUIDES, ROOT / "CHANGELOG.md"], ids=names)
def test_lines_have_120_columns_at_most(path):
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    too_long = [number for number, line in lines if len(line) > 120 and not line.startswith("|")]
    assert too_long == []


def test_the_readme_has_150_lines_at_most():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def slugs(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as the site makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", h).strip().lower()) for h in headings}


@pytest.mark.parametrize("path", MARKDOWN, ids=names)
def test_every_link_within_the_repository_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not re.match(r"https?://", target):
            file, _, anchor = target.partition("#")
            page = path.parent / file if file else path
            assert page.exists(), target
            assert not anchor or anchor in slugs(page), target


# --- snippets


@pytest.mark.parametrize("page", ["README.md", "docs/uncertainty.md"])
def test_the_python_snippets_give_what_their_comments_say(page):
    """A comment starts with the shape of the value before it, or with numbers that are in it."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.S | re.M)
    assert blocks
    scope, checked = {}, 0
    for block in blocks:
        for node in ast.parse(block).body:
            line = block.splitlines()[node.lineno - 1]
            if not isinstance(node, ast.Expr):
                exec(ast.unparse(node), scope)
                continue
            value = np.asarray(eval(ast.unparse(node), scope))
            comment = re.match(r"(\[[\d., \[\]]*\])|-?\d+\.\d+", line.partition("  # ")[2])
            if comment is None:
                continue
            expected, checked = ast.literal_eval(comment[0]), checked + 1
            if "." in comment[0]:
                np.testing.assert_allclose(value.squeeze(), expected, atol=6e-3)
            else:
                assert list(value.shape) == expected
    assert checked >= 3


# --- commands


def code_lines(page: str) -> Iterator[str]:
    """Yield the lines of a page's code blocks, joined where they end with a backslash."""
    fenced = re.findall(r"^```(?:bash|text)?\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    indented = re.findall(
        r"(?:^ {4,}.*\n)+", re.sub(r"^```.*?^```$", "", page, flags=re.S | re.M), re.M
    )
    for block in [*fenced, *indented]:
        yield from re.sub(r"\\\n", " ", block).splitlines()


def module_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the module that a command line runs, with its arguments; None for another project's."""
    if words[:2] == ["python", "-m"] and words[2].partition(".")[0] in PACKAGES:
        return words[2], words[3:]
    if words[:1] == ["tfhuber"]:
        assert words[1] in COMMANDS, f"tfhuber has no command {words[1]}"
        return COMMANDS[words[1]], words[2:]
    return None


def command_lines(page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands in code blocks, up to a pipe or a comment, with their `[optional]` arguments."""
    for line in code_lines(page):
        if re.match(r" *(python -m|tfhuber) ", line):
            text = re.sub(r"\[(-[^]|]*)[^]]*\]", r"\1", line).partition(" | ")[0]
            text = text.removesuffix("'") if text.count("'") % 2 else text  # the end of a script's
            words = shlex.split(text, comments=True)
            if found := module_of([word for word in words if not word.startswith("$")]):
                yield found


@functools.cache
def parser_of(module: str) -> argparse.ArgumentParser:
    """Return the parser that a command makes, by running its `main` up to the parsing."""

    class Found(Exception):
        pass

    def parse(parser, *_):
        raise Found(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module])
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
        try:
            main_of(module)()
        except Found as found:
            return found.args[0]
    raise AssertionError(f"{module} parses no arguments")


def main_of(module: str) -> Callable[[], object]:
    imported = importlib.import_module(module)
    if not hasattr(imported, "main"):
        imported = importlib.import_module(f"{module}.__main__")
    return imported.main


@pytest.mark.parametrize("path", GUIDES, ids=names)
def test_every_command_in_a_code_block_can_be_parsed(path, capsys):
    page = path.read_text(encoding="utf-8")
    for module, arguments in command_lines(page):
        parser = parser_of(module)
        try:
            _, rest = parser.parse_known_args(arguments)
        except SystemExit as stop:
            assert stop.code == 0, f"{module} {shlex.join(arguments)}: {capsys.readouterr().err}"
            continue
        # What the conversion does not know are options of Beam's, which test_portability.py checks.
        assert module == "pipelines.make_tfrecords" or not rest, f"{module} {shlex.join(arguments)}"


def test_the_code_blocks_hold_the_commands_that_a_user_needs():
    found = {module for path in GUIDES for module, _ in command_lines(path.read_text("utf-8"))}
    assert found >= set(MODULES) - {"pipelines.contact_sheet", "tfhuber.graph_lint"}


@pytest.mark.parametrize("path", GUIDES, ids=names)
def test_every_command_in_a_sentence_exists_with_its_options(path):
    for text in re.findall(r"`((?:python -m|tfhuber) [^`]*)`", path.read_text(encoding="utf-8")):
        words = text.split()
        if words[1:2] in (["COMMAND"], ["--help"], ["--version"]):
            continue
        if found := module_of(words):
            module, arguments = found
            known = parser_of(module)._option_string_actions
            options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
            assert set(options) <= {*known}, text


@pytest.mark.parametrize("path", GUIDES, ids=names)
def test_every_file_that_is_named_exists(path):
    pattern = r"`((?:configs|docs|tests|tools|benchmarks|pipelines|serving)/[\w./-]+\.\w+)`"
    named = re.findall(pattern, path.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists() and "NAME" not in name] == []


@pytest.mark.parametrize("path", GUIDES, ids=names)
def test_every_name_in_python_that_is_given_exists(path):
    pattern = r"`((?:tfhuber|pipelines|serving|benchmarks)(?:\.[a-zA-Z_]+)+)[(`]"
    for name in re.findall(pattern, path.read_text(encoding="utf-8")):
        if (ROOT / name).exists():
            continue
        *modules, last = name.split(".")
        owner = importlib.import_module(".".join(modules))
        assert hasattr(owner, last) or importlib.import_module(name), name


@pytest.mark.parametrize("path", GUIDES, ids=names)
def test_every_make_target_that_is_named_exists(path):
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^ {4})make ([a-z-]+)", text, re.MULTILINE)
    assert set(named) <= known


# --- the site and what is cited


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert set(re.findall(r"^ +- .*: (\S+\.md)$", navigation, re.MULTILINE)) == pages


def test_the_reference_is_read_without_tensorflow_and_names_every_public_name():
    script = (
        "import sys; sys.path.insert(0, 'tools'); import reference_pages as r; import tfhuber\n"
        "pages = {name: r._page(name, modules) for name, modules in r._packages().items()}\n"
        "assert all(f'tfhuber.{name}`' in pages['tfhuber'] for name in tfhuber.__all__)\n"
        "assert 'tensorflow' not in sys.modules\n"
        "print(*pages)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"tfhuber.linalg", "tfhuber.distributions", "serving.client"} <= set(done.stdout.split())


def test_the_citation_is_one_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and {"title", "message", "authors"} <= set(citation)
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Mohlin",
        "Bianchi",
        "Sullivan",
    ]
    assert "version" not in citation  # tfhuber.__version__ is the one place


def test_the_changelog_has_the_version():
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased" and headings[1] == tfhuber.__version__
