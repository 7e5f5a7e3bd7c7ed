"""`tfhuber COMMAND ...` is `python -m PACKAGE.COMMAND ...`, for every command that there is."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import tfhuber
from tfhuber.__main__ import COMMANDS, MODULES, main

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"tensorflow", "keras", "matplotlib", "apache_beam", "starlette"}


@pytest.fixture
def dispatch(monkeypatch, capsys):
    """Call `tfhuber` with these arguments; return its exit status, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tfhuber", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return call


def test_every_module_that_can_be_run_is_a_command():
    files = [
        path for top in ("tfhuber", "pipelines", "serving") for path in ROOT.glob(f"{top}/**/*.py")
    ]
    runnable = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in files
        if "run_main(main)" in path.read_text(encoding="utf-8")
    }
    assert runnable == set(MODULES)
    assert sorted(COMMANDS.values()) == sorted(MODULES)
    renamed = {module: name for name, module in COMMANDS.items() if not module.endswith(f".{name}")}
    assert renamed == {"pipelines.predict": "predict_all"}  # `predict` is for one picture.


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=str)
def test_help_lists_every_command_in_one_line(dispatch, arguments):
    status, out, err = dispatch(*arguments)
    assert (status, err) == (0, "")
    listed = [line.split(maxsplit=1) for line in out.partition("commands:\n")[2].splitlines()]
    assert [name for name, _ in listed] == list(COMMANDS)
    assert all(len(summary) > 12 and "python -m" not in summary for _, summary in listed)


def test_help_loads_no_heavy_library():
    script = (
        "import sys; from tfhuber.__main__ import help_text; help_text(); print(*{m.partition('.')[0]"
        " for m in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert not HEAVY & set(loaded.stdout.split()) and "tfhuber" in loaded.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_runs_its_module_with_the_arguments_after_it(dispatch, monkeypatch, name):
    called = []

    def run_module(*arguments, **keywords):
        called.append((arguments, keywords, sys.argv[1:]))

    monkeypatch.setattr(runpy, "run_module", run_module)
    assert dispatch(name, "--x", "train") == (0, "", "")
    ((names, keywords, arguments),) = called
    assert names == (COMMANDS[name],) and arguments == ["--x", "train"]
    assert keywords == {"run_name": "__main__", "alter_sys": True}


@pytest.mark.parametrize("arguments", [["compare", "nowhere", "nothing"], ["config", "nowhere"]])
def test_both_ways_to_call_a_command_do_the_same(arguments):
    (module,) = [module for module in MODULES if module.endswith(f".{arguments[0]}")]
    ways = [["tfhuber", *arguments], [module, *arguments[1:]]]
    one, other = [
        subprocess.run([sys.executable, "-m", *way], capture_output=True, text=True, cwd=ROOT)
        for way in ways
    ]
    assert (one.returncode, one.stdout, one.stderr) == (
        other.returncode,
        other.stdout,
        other.stderr,
    )
    assert one.stdout + one.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("trian", "did you mean train? "),
        ("make-tfrecords", "did you mean make_tfrecords? "),
        ("xyzzy", ""),
    ],
)
def test_an_unknown_command_gets_one_line_with_the_nearest(dispatch, name, hint):
    expected = f"error: there is no command '{name}'; {hint}`tfhuber --help` lists them all\n"
    assert dispatch(name) == (2, "", expected)


def test_the_version(dispatch):
    assert dispatch("--version") == (0, f"tfhuber {tfhuber.__version__}\n", "")
