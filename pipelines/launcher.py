"""What the process that starts a job of shards does: follow it to its end, and gather what it left."""

import time

import apache_beam as beam
import google_crc32c

from pipelines.output import Work
from pipelines.plans import ShardPlan
from pipelines.runners import run_job
from pipelines.shards import REJECTS, SUMMARIES, interrupt
from pipelines.storage import create, digest, is_local, open_file
from tfhuber.console.cli import progress

__all__ = ["gather_rejects", "run_shards"]


def run_shards(pipeline: beam.Pipeline, plans: list[ShardPlan], work: Work, doing: str) -> None:
    """Run a job that writes shards to the work's folder `data`, and leave nothing else there.

    Args:
      pipeline: with the job.
      plans: of all its shards.
      work: where they go.
      doing: what the progress bar says, such as "crop".
    """
    entries = {plan.name: plan.entries for plan in plans}
    for name in set(work.names("data")) - entries.keys():  # Of an earlier run with other options.
        work.clear("data", name)
    started = time.time()
    with progress(total=sum(entries.values()), desc=doing, unit=" examples") as bar:
        bar.disable = not is_local(work.root)  # Elsewhere it is the runner that shows how it goes.

        def follow_files() -> None:
            if not bar.disable:
                finished = work.names(SUMMARIES, since=started)
                bar.update(sum(entries.get(name, 0) for name in finished) - bar.n)

        run_job(pipeline, follow_files, interrupt)
        bar.update(bar.total - bar.n)


def gather_rejects(plans: list[ShardPlan], work: Work, name: str) -> dict:
    """Write all rejects in the plans' order to a file of `data`; return its name, size and checksum."""
    path, size = work.path("data", name), 0
    with create(path) as file:
        for plan in plans:
            with open_file(work.path(REJECTS, plan.name)) as lines:
                size += file.write(lines.read())
    return {"name": name, "bytes": size, "crc32c": digest(path, google_crc32c.Checksum())}
