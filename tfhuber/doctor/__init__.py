"""Whether training can work on this machine: `python -m tfhuber.doctor`."""
