"""What a finished training leaves in its directory, without its checkpoints."""

from pathlib import Path

from tfhuber.console.files import write_json


def finish(
    run: Path,
    metrics: dict,
    *,
    config: dict | None = None,
    data: str | None = "a",
    measured_on: str | None = None,
    finished: int | None = 100,
    **changes: object,
) -> None:
    """Write `run.json` and `metrics.json` of a run.

    Args:
      run: its directory.
      metrics: what it measured.
      config: of the run.
      data: the first of the characters of the data set's checksum that it was trained on.
      measured_on: that of the one that it was measured on, if another.
      finished: its last step; None while it isn't finished.
      changes: of the metrics.
    """
    values = {"config": config or {"data": {"directory": "d"}}}
    values["provenance"] = {"data": {"sha256": checksum(data)}}
    if finished is not None:
        values["finished"] = {"step": finished, "data_sha256": checksum(measured_on or data)}
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "run.json", values)
    write_json(run / "metrics.json", {**metrics, **changes})


def checksum(text: str | None) -> str | None:
    """Return a text of the length of a checksum; a longer one is one already."""
    return None if text is None else (text * 64)[:64]
