"""The arguments of every job of shards: where it writes, in what pieces, and on which runner."""

import argparse

__all__ = ["check_range", "job_parser"]


def job_parser(prog: str, description: str, item: str, result: str) -> argparse.ArgumentParser:
    """Return a parser with the job's own options, to which others are added.

    Args:
      prog: how the command is called.
      description: what it does.
      item: what a shard holds several of, such as "examples".
      result: what `--overwrite` replaces.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog="Paths may be local or gs://, s3:// and so on, as Beam's installed extras allow. Any other "
        "option is Beam's own, such as --project for --runner DataflowRunner.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="directory to make")
    add("--overwrite", action="store_true", help=f"replace {result} made before")
    add("--shard-examples", type=int, default=256, metavar="N", help=f"{item} a shard (256)")
    add("--processes", type=int, default=1, metavar="N", help="local worker processes (1)")
    add("--runner", default="FnApiRunner", help="Beam's runner (FnApiRunner: on this machine)")
    return parser


def check_range(args: argparse.Namespace, name: str, least: float, most: float) -> None:
    """Raise ValueError if an argument that was given is out of its range."""
    value = getattr(args, name)
    if value is not None and not least <= value <= most:
        option = "--" + name.replace("_", "-")
        raise ValueError(f"{option} must be between {least} and {most}, got {value}")
