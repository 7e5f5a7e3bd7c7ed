"""The house as CONTRIBUTING.md shows it, as the import contract checks it, and its limits of size."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    file
    for folder in ("tfhuber", "pipelines", "serving", "benchmarks", "tools")
    for file in sorted((ROOT / folder).rglob("*.py"))
]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def test_the_table_shows_the_lines_of_the_contract():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = re.search(r"^    tfhuber/ .*\n((?:    .*\n)+)", text, re.M)[1]
    rows = [line.split() for line in table.splitlines()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]["layers"]
    _, commands, *layers = [re.split(r" \| ", layer) for layer in contract]
    # The first line is the dispatcher. Packages of one line may stand in any order, but together.
    assert [name for row in rows if row[0] == "commands" for name in row[1:]] == commands
    shown = [row[0] for row in rows if row[0] != "commands"]
    for layer in layers:
        assert sorted(shown[: len(layer)]) == sorted(layer)
        del shown[: len(layer)]
    assert shown == []


def test_files_are_one_idea_each_and_functions_fit_on_a_screen():
    long_files, long_functions = {}, {}
    for file in [*SOURCES, *TESTS]:
        name, text = str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > 400:
            long_files[name] = lines
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 60:
                    long_functions[f"{name}: {node.name}"] = lines
    assert long_files == {}
    assert long_functions == {}


def test_tests_stand_in_the_folder_of_their_package():
    packages = {file.parent.relative_to(ROOT) for file in SOURCES}
    mirrored = {Path(*p.parts[1:]) if p.parts[0] == "tfhuber" else p for p in packages}
    folders = {file.parent.relative_to(ROOT / "tests") for file in TESTS}
    others = {Path("."), Path("helpers"), Path("before_the_move"), Path("serving/real")}
    assert folders - mirrored <= others
