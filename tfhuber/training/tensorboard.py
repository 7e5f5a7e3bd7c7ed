"""What TensorBoard shows of a training run; `docs/training.md` says what each tag means."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfhuber.data.dataset import Split
from tfhuber.evaluation import examples, plots, reliability, summary
from tfhuber.evaluation.predictions import Predictions
from tfhuber.model.predictor import Predictor

__all__ = ["Summaries", "network_deviations"]

PICTURES = 8
PICTURE_SIZE = 320
PERCENTILES = (10, 50, 90)
HISTOGRAM_STEPS = 500


class Summaries:
    """TensorBoard's files of a run, which show each step once, however often the run was killed.

    Args:
      directory: of the files; of several workers, the chief alone may write there.
      first_step: the first that will be written. TensorBoard drops what it has of this step and later
        ones: a process that was killed took them after its last checkpoint, and they are taken again.
      predictor: of the model that is evaluated.
      split: that it is evaluated on.
    """

    def __init__(self, directory: str | Path, first_step: int, predictor: Predictor, split: Split):
        self._predictor, self._split = predictor, split
        self._views: dict[int, examples.View] = {}
        self._last: tuple[int, float] | None = None
        _mark_start(str(directory), first_step)
        self._writer = tf.summary.create_file_writer(str(directory))

    def training(
        self, step: int, values: Mapping[str, float], precision_factor: np.ndarray | tf.Tensor
    ) -> None:
        """Write `training/...` of a step.

        Args:
          step: the number of steps done.
          values: scalars by name.
          precision_factor: [B, K, 2, 2] predicted for (a part of) its batch, in normalised
            coordinates.
        """
        deviation = network_deviations(self._predictor, precision_factor)
        values = {**values, **self._speed(step)}
        for percent, value in zip(PERCENTILES, np.percentile(deviation, PERCENTILES), strict=True):
            values[f"deviation_{percent}"] = value
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(f"training/{name}", value)
            if step % HISTOGRAM_STEPS == 0:
                tf.summary.histogram("training/deviation", deviation)
        # Before the checkpoint of this step: what comes before a checkpoint must not be lost.
        self._writer.flush()

    def evaluation(self, step: int, metrics: dict, predictions: Predictions) -> None:
        """Write `evaluation/...` and pictures.

        Args:
          step: after which it was made.
          metrics: as `summary.evaluate` returns them.
          predictions: what they are of.
        """
        predictor, unit = self._predictor, summary.error_unit(self._predictor)
        errors = summary.calibration_errors(predictor, predictions)
        curve = reliability.calibration_curve(*errors)
        calibration = plots.calibration_figure({f"step {step:,}": curve}, unit)
        landmarks = plots.landmark_figure(
            predictor.landmark_set.names, *summary.landmark_errors(predictor, predictions), unit
        )
        with self._writer.as_default(step=step):
            for tag, value in _scalars(metrics, "evaluation"):
                tf.summary.scalar(tag, value)
            for name, values in summary.deviations(predictions).items():
                tf.summary.histogram(f"evaluation/deviation_{name}", values)
            tf.summary.image("calibration", plots.rendered(calibration)[None])
            tf.summary.image("landmarks", plots.rendered(landmarks)[None])
            tf.summary.image("examples", self._pictures(predictions), max_outputs=PICTURES)
        self._writer.flush()
        self._last = step, time.monotonic()  # evaluations don't count as slow steps

    def _speed(self, step: int) -> dict[str, float]:
        """Return images a second since the last report; none at the first, which waited for the graph."""
        now, last = time.monotonic(), self._last
        self._last = step, now
        if last is None:
            return {}
        images = (step - last[0]) * self._predictor.batch_size
        return {"images_per_second": images / (now - last[1])}

    def _pictures(self, predictions: Predictions) -> np.ndarray:
        """Return [P, S, S, 3] of the same examples every time, evenly spaced by their ids."""
        if not self._views:
            order = np.argsort(predictions.id)
            places = np.linspace(0, len(order) - 1, min(PICTURES, len(order)))
            chosen = order[places.round().astype(int)]
            batch_size = self._predictor.batch_size
            found = examples.views(self._split, chosen, PICTURE_SIZE, batch_size)
            self._views = {int(index): found[int(index)] for index in chosen}
        crops = (
            view.crop(predictions.landmarks[index], predictions.covariance[index])
            for index, view in self._views.items()
        )
        return np.stack([np.asarray(examples.draw(self._predictor, crop)) for crop in crops])


def network_deviations(
    predictor: Predictor, precision_factor: np.ndarray | tf.Tensor
) -> np.ndarray:
    """Return standard deviations sqrt(trace / 2) in network-crop pixels, [B, K].

    Args:
      predictor: of the model.
      precision_factor: [B, K, 2, 2] in normalised coordinates, as the network predicts it.
    """
    inverse = np.asarray(precision_factor, np.float64) @ predictor.whitening.factor
    # The covariance is kappa M M' with M = inv(A W); its trace is that of M' M, and for 2 x 2 matrices
    # the sum of squares of an inverse is that of the matrix over its determinant's square.
    (a, b), (c, d) = np.moveaxis(inverse, (-2, -1), (0, 1))
    squares = (a * a + b * b + c * c + d * d) / np.square(a * d - b * c)
    return np.sqrt(predictor.energy.kappa(2) * squares / 2)


def _mark_start(directory: str, step: int) -> None:
    """Make TensorBoard forget what it has of this and later steps; every start of a run needs its mark.

    TensorBoard takes the first mark in a directory for the run's beginning, and acts on those after it.
    """
    log = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    with tf.Graph().as_default(), tf.compat.v1.summary.FileWriter(directory) as writer:
        writer.add_session_log(log, global_step=step)


def _scalars(metrics: dict, path: str) -> Iterator[tuple[str, float]]:
    """Yield tags and values of the metrics that are measured, without counts; nested ones by paths."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{path}/{name}")
        elif isinstance(value, float):
            yield f"{path}/{name}", value
