"""The Beam job: each element is the plan of one shard, which `RunInference` hands to a worker's model.

Beam's own batches depend on when pictures arrive and on who takes them. So the batch that it makes here is
one plan, and the plan says which pictures the model sees together: a shard's bytes depend on the plan, the
model and the source alone. Memory is bounded by a batch of pictures and a shard's numbers.

Beam's handlers for TensorFlow load models through Keras 2 and TensorFlow Hub; this one calls a signature.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import apache_beam as beam
import google_crc32c
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference

import tfhuber
from pipelines.output import Work
from pipelines.plans import ShardPlan, read_plan
from pipelines.predict.answers import FORMATS, answers
from pipelines.predict.model import ExportedModel, LoadedModel
from pipelines.predict.reading import PictureReader, Reject
from pipelines.predict.requests import Request
from pipelines.shards import finished_shard, keep_books, spread
from pipelines.storage import create, digest, rename

__all__ = ["ShardPredictor", "add_job", "versions"]


def versions() -> dict[str, str]:
    """Return the versions of the programs that decide a shard's bytes."""
    names = ("apache-beam", "numpy", "orjson", "pyarrow", "tensorflow")
    return {name: metadata.version(name) for name in names} | {"tfhuber": tfhuber.__version__}


@dataclass(frozen=True)
class ShardPredictor:
    """Writes a plan's shard with the model's answers.

    Attributes:
      model: who is asked; its checksum is what counts, not where it lies.
      work: where shards go; written aside and renamed, so that a shard in `data` is complete.
      format: one of `FORMATS`.
      batch: pictures that the model sees together.
    """

    model: ExportedModel
    work: Work
    format: str
    batch: int

    def made_of(self, plan: ShardPlan) -> str:
        """Return a digest of all that decides the shard's bytes, but for the source's files."""
        settings = (self.model.sha256, self.model.signature, self.format, self.batch, versions())
        return digest(plan.path, hashlib.sha256(json.dumps(settings).encode()))

    def finished(self, plan: ShardPlan) -> tuple[dict, list[dict]] | None:
        """Return summary and rejects of a finished shard, if it is what would be written; else None."""
        if not (finished := finished_shard(self.work, plan, self.made_of(plan))):
            return None
        reader = PictureReader()
        for _ in reader.read(read_plan(plan.path, Request)):
            pass
        return finished if reader.summary() == finished[0]["sources"] else None

    def write(self, plan: ShardPlan, model: LoadedModel) -> tuple[dict, list[dict]]:
        """Write the shard; return its summary, and its rejects in the plan's order."""
        reader, predictions, rejects = PictureReader(), [], []
        for item in answers(reader.read(read_plan(plan.path, Request)), model, self.batch):
            if isinstance(item, Reject):
                rejects.append(asdict(item))
            else:
                predictions.append(item)
        content = FORMATS[self.format](predictions, model)
        aside = self.work.path("writing", f"{plan.name}.{uuid.uuid4().hex}")
        with create(aside) as file:
            file.write(content)
        rename(aside, self.work.path("data", plan.name))
        summary = {
            "name": plan.name,
            "split": plan.split,
            "entries": plan.entries,
            "predictions": len(predictions),
            "rejects": len(rejects),
            "bytes": len(content),
            "crc32c": google_crc32c.Checksum(content).digest().hex(),
            "sources": reader.summary(),
            "made_of": self.made_of(plan),
        }
        return summary, rejects


class _Handler(ModelHandler[ShardPlan, PredictionResult, LoadedModel]):
    """Beam's side: one model a worker process, whatever its threads; a batch is one plan."""

    def __init__(self, predictor: ShardPredictor):
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._predictor, self._versions = predictor, versions()

    def load_model(self) -> LoadedModel:
        if versions() != self._versions:
            raise OSError(f"a worker has {versions()}, and the launcher {self._versions}")
        return self._predictor.model.load()

    def run_inference(
        self,
        batch: Sequence[ShardPlan],
        model: LoadedModel,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterator[PredictionResult]:
        for plan in batch:
            yield PredictionResult(plan, self._predictor.write(plan, model))

    def get_metrics_namespace(self) -> str:
        return "predict"


class _KeepFinished(beam.DoFn):
    """`ShardPlan` -> itself if it is still to be done; tagged "kept": as `PredictionResult` if not."""

    def __init__(self, predictor: ShardPredictor):
        self._predictor = predictor

    def process(self, plan: ShardPlan) -> Iterator[ShardPlan | beam.pvalue.TaggedOutput]:
        finished = self._predictor.finished(plan)
        Metrics.counter("shards", "kept" if finished else "written").inc()
        if finished:
            yield beam.pvalue.TaggedOutput("kept", PredictionResult(plan, finished))
        else:
            yield plan


def add_job(pipeline: beam.Pipeline, plans: list[ShardPlan], predictor: ShardPredictor) -> None:
    """Add the job that writes the shards, and their summaries and rejects to the work's folders."""
    checked = spread(plans, pipeline) | "Finished" >> beam.ParDo(
        _KeepFinished(predictor)
    ).with_outputs("kept", main="wanted")
    made = checked.wanted | "Predict" >> RunInference(_Handler(predictor))
    # Not flattened into one: the local runner would write no book before the last shard is done.
    _keep_books(made, predictor.work, "Keep")
    _keep_books(checked.kept, predictor.work, "KeepFinished")


def _keep_books(results: beam.PCollection, work: Work, step: str) -> None:
    books = results | f"{step}Books" >> beam.FlatMap(_books).with_outputs(
        "rejects", main="summaries"
    )
    keep_books(books.summaries, books.rejects, work, step)


def _books(result: PredictionResult) -> Iterator[Any]:
    summary, rejects = result.inference
    Metrics.counter("predictions", summary["split"]).inc(summary["predictions"])
    for reject in rejects:
        Metrics.counter("rejects", reject["reason"]).inc()
    yield summary["name"], [summary]
    yield beam.pvalue.TaggedOutput("rejects", (summary["name"], rejects))
