"""Reproduce a table of the paper: `python -m tfhuber.reproduce table2 --data DIR --output DIR`.

Trains what is missing and continues what was cut short, then prints the table with mean and standard
deviation over the seeds beside the published value, and writes it to OUTPUT (table2.md, table2.json,
table2.png). Tables that share runs share them in the same OUTPUT.
"""

import argparse
import sys
from pathlib import Path

from tfhuber.console.cli import run_main
from tfhuber.paper import report
from tfhuber.paper.reproduction import check_data, cost_table, measure, plan, train_all
from tfhuber.paper.tables import TABLES

__all__ = ["main"]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tfhuber.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="tables:\n"
        + "\n".join(f"  {name:<17} {table.title}" for name, table in TABLES.items()),
    )
    parser.add_argument(
        "table", choices=TABLES, metavar="TABLE", help="a table from the list below"
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="a converted data set, or a directory with several: wflw, mpii, 300w_lp",
    )
    parser.add_argument("--output", type=Path, help="gets runs/ and the table (default: results)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each kind (default: 5)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: 1)")
    parser.add_argument("--dry-run", action="store_true", help="only list the runs with their cost")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY.PATH=VALUE",
        help="replaces one value in every run, e.g. --set model.backbone=resnet18; may be repeated",
    )
    arguments = parser.parse_args()
    for name in ("seeds", "jobs"):
        if not 1 <= getattr(arguments, name) <= 1000:
            raise ValueError(f"--{name} must be from 1 to 1000, got {getattr(arguments, name)}")
    table, output = TABLES[arguments.table], arguments.output or Path("results")
    runs = plan(table, arguments.data, output, arguments.seeds, arguments.set)
    if arguments.dry_run:
        print(f"{arguments.table}: {table.title}")
        print(cost_table(runs))
        return 0
    check_data(runs, arguments.data)
    failures = train_all(runs, arguments.jobs)
    values = measure(runs, table)
    print(report.write(output, arguments.table, table, values, arguments.seeds))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    run_main(main)
