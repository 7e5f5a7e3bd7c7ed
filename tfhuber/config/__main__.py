"""The reference of the configuration: `python -m tfhuber.config [FILE]`."""

from tfhuber.config.reference import main
from tfhuber.console.cli import run_main

if __name__ == "__main__":
    run_main(main)
