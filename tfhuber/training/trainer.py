"""Training and continuing of a run.

The same run started again continues where the last checkpoint stands, and ends with the same weights as
an undisturbed one. SIGTERM and an interrupt (Ctrl-C) save the step that is under way first.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from tfhuber.config.schema import Config
from tfhuber.console.cli import progress
from tfhuber.console.files import write_json
from tfhuber.console.signals import Interrupted, SignalWatch
from tfhuber.data import dataset
from tfhuber.evaluation import summary
from tfhuber.evaluation.predictions import collect
from tfhuber.landmarks.known_sets import LandmarkSet
from tfhuber.model.predictor import Predictor
from tfhuber.model.whitening import Whitening
from tfhuber.runs.checkpoints import Checkpoints, tidy, writing
from tfhuber.runs.directory import RunFile, create_or_check, fit_whitening, locked_run
from tfhuber.runs.load import load_run
from tfhuber.runs.transfer import carry_over, kept_rows
from tfhuber.training import strategy as distribution
from tfhuber.training.finite_guard import FiniteGuard
from tfhuber.training.state import State
from tfhuber.training.step import training_step
from tfhuber.training.tensorboard import Summaries

__all__ = ["Trainer", "recipe_of", "train"]

_LOGGER = logging.getLogger(__name__)
_REPORT_STEPS = 20


def train(config: Config, run_directory: str | Path, *, quiet: bool = False) -> dict:
    """Train or continue a run, then evaluate it.

    Args:
      config: what to train.
      run_directory: gets `run.json`, `whitening.json`, `metrics.json`, checkpoints in `latest/` and
        `best/`, and TensorBoard's files in `logs/`.
      quiet: no progress bar.

    Returns:
      The metrics of the final weights, as in `metrics.json`; none in a worker that is not the chief.

    Raises:
      ValueError: if the data set is unusable, the directory holds a run of another configuration or
        data set, or numbers stop being finite; their batch is then in `not_finite/`.
      OSError: if another process trains this run, or something cannot be written; the checkpoints
        there stay good.
      ConnectionError: if another worker of a distributed training is lost.
      Interrupted: a KeyboardInterrupt, after SIGTERM or SIGINT to this or another of its processes.
    """
    run = Path(run_directory)
    with SignalWatch() as signals:
        try:
            strategy = distribution.strategy_for(config.train.distribution)
            signals.listen()  # that of several workers takes SIGTERM for itself
            trainer = Trainer(config, run, strategy, signals, quiet=quiet)
            with locked_run(run) if trainer.is_chief else contextlib.nullcontext():
                trainer.prepare()
                return trainer.fit()
        except ConnectionError as error:
            if signals.received is None:
                raise
            raise signals.interrupted() from error


class Trainer:
    """The training of a run: `prepare` once, then `fit`, which takes, saves and evaluates steps.

    In a distributed training every process has one, and they call the same methods after the same steps.

    Args:
      config: what to train.
      run: its directory.
      strategy: of this process.
      signals: what asks for an early end.
      quiet: no progress bar.

    Raises:
      ValueError: if the data set is unusable.
    """

    def __init__(
        self,
        config: Config,
        run: Path,
        strategy: tf.distribute.Strategy,
        signals: SignalWatch,
        *,
        quiet: bool = False,
    ):
        self.is_chief = distribution.is_chief(strategy)
        self._config, self._run = config, run
        self._strategy, self._signals = strategy, signals
        self._quiet = quiet or not self.is_chief
        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(config.train.seed)
        self._split = dataset.open_split(config.data.directory, config.data.train_split)
        self._held_out = dataset.open_split(config.data.directory, config.data.evaluation_split)
        self._recipe = recipe_of(config)
        self._epoch_steps = dataset.steps_per_epoch(self._split, self._recipe)
        self._last_step = self._epoch_steps * config.train.epochs
        _check_metric(config.train.best_metric, self._held_out.landmark_set)
        self._metrics: dict = {}

    def prepare(self) -> None:
        """Bring the directory and the state to where the last checkpoint stands, or to the first step."""
        config, run, landmark_set = self._config, self._run, self._split.landmark_set
        if self.is_chief:
            create_or_check(run, config, landmark_set)
            tidy(run)
            fit_whitening(run, self._split, self._recipe, config.model)
        distribution.barrier(self._strategy)  # the others read what the chief has written
        whitening = Whitening.load(run / "whitening.json", landmark_set.count)
        with self._strategy.scope():
            self._state = State.create(
                config.model, config.train, landmark_set.count, self._epoch_steps
            )
        self._checkpoints = Checkpoints(run, *self._state.kept)
        if self._checkpoints.restore() is None and config.model.transfer is not None:
            self._take_over(load_run(config.model.transfer))
        self._first = self._state.step
        if distribution.from_chief(self._first, self._strategy) != self._first:
            raise ValueError(
                f"{run} holds other checkpoints here than for the first worker; share it"
            )
        self._predictor = Predictor(
            self._state.evaluated, whitening, config.model, landmark_set, config.train.batch_size
        )
        self._take_step = training_step(
            self._state, whitening, self._predictor.energy, config.train, self._strategy
        )
        self._guard = FiniteGuard(
            run, self._state, self._batch_of_step, landmark_set.edges, self._strategy
        )
        if self.is_chief:
            self._run_file = RunFile(run, config.train.batch_size)
            # An evaluation follows its checkpoint, so the run may have been stopped in it.
            first_told = self._first if self._evaluates_after(self._first) else self._first + 1
            with writing(f"TensorBoard's files to {run / 'logs'}"):
                self._summaries = Summaries(
                    run / "logs", first_told, self._predictor, self._held_out
                )

    def fit(self) -> dict:
        """Train from the last checkpoint to the end of the run; its metrics, in the chief."""
        size = self._config.train.batch_size
        total, done = self._last_step * size, self._first * size
        self._bar = progress(total=total, initial=done, desc="training", unit="img")
        self._bar.disable = self._quiet
        flags = distribution.SharedFlags(self._strategy, self._first)
        self._saved = time.monotonic()
        self._signals.defer()
        with self._bar:
            over = self._evaluates_after(self._first) and self.evaluate(self._first)
            for step, batch in () if over else self._batches():
                self.step(step, batch)
                asked = self._signals.received is not None
                stop, due = flags.any_set(step, [asked, self._is_save_due()])
                evaluates = self._evaluates_after(step)
                if stop or due or evaluates:
                    self.save(step)
                elif step % _REPORT_STEPS == 0:
                    self._report(step, check_weights=False)
                if stop:
                    distribution.barrier(self._strategy)  # nobody ends before it is saved
                    raise self._interrupted(step)
                if evaluates and self.evaluate(step):
                    break
        if self.is_chief:
            write_json(self._run / "metrics.json", self._metrics)
            self._run_file.finish(self._state.step, self._config.data.directory)
        return self._metrics

    def step(self, step: int, batch: dict) -> None:
        """Take a step of gradient descent with a (distributed) batch."""
        with distribution.lost_workers_named():
            self._outcome = self._take_step(batch)
        self._guard.record(step, self._outcome)
        self._bar.update(self._config.train.batch_size)

    def save(self, step: int) -> None:
        """Write a checkpoint of what the step left, once all of it is seen to be finite.

        Raises:
          ValueError: if something is not finite.
          OSError: if the checkpoint cannot be written.
        """
        self._report(step, check_weights=True)
        if self.is_chief:
            self._checkpoints.save(step)
            self._run_file.save(step)
            self._saved = time.monotonic()

    def evaluate(self, step: int) -> bool:
        """Measure the weights after a step that is saved, and keep the best; whether training ends here.

        Raises:
          Interrupted: if a process was asked to end.
        """
        metrics: dict = {}
        over = False
        if self.is_chief:
            # A signal doesn't wait for the evaluation, as the step is saved. The others are told below.
            timed = self._run_file.evaluating(step)
            with contextlib.suppress(Interrupted), self._signals.not_deferred(), timed:
                predictions = collect(self._predictor, self._held_out)
                metrics = summary.evaluate(self._predictor, self._held_out, "none", predictions)
                with writing("TensorBoard's files"):
                    self._summaries.evaluation(step, metrics, predictions)
        if metrics:
            train = self._config.train
            self._checkpoints.keep_best(step, _score(metrics, train.best_metric))
            best_step = self._checkpoints.best_step or 0
            self._run_file.save(step, metrics, best=best_step == step)
            over = step - best_step >= self._epoch_steps * (train.early_stop_epochs or train.epochs)
            self._bar.set_postfix_str(summary.headline(metrics), refresh=False)
            self._metrics = metrics
        asked = self._signals.received is not None
        stop, over = distribution.any_process([asked, over], self._strategy)
        if stop:
            raise self._interrupted(step)
        return over

    def _take_over(self, source: Predictor) -> None:
        """Start from the weights of another run."""
        pairs = kept_rows(source, self._config.model, self._split.landmark_set)
        carry_over(source.model, self._state.model, pairs)
        if self.is_chief:
            _LOGGER.warning(
                "model.transfer: %d of %d landmarks are those of %s and keep their head",
                len(pairs),
                self._split.landmark_set.count,
                self._config.model.transfer,
            )

    def _batches(self) -> Iterator[tuple[int, dict]]:
        """Yield the steps that are left, each with this process's part of its batch."""
        batches = distribution.distribute(
            lambda part: dataset.training_batches(
                self._split, self._recipe, start_step=self._first, part=part
            ),
            self._config.train.batch_size,
            self._strategy,
        )
        yield from enumerate(dataset.readable(batches, self._split), self._first + 1)

    def _batch_of_step(self, step: int) -> dict:
        """Return the whole batch of a step once more."""
        return next(iter(dataset.training_batches(self._split, self._recipe, start_step=step - 1)))

    def _evaluates_after(self, step: int) -> bool:
        between = self._epoch_steps * self._config.train.evaluation_epochs
        return step > 0 and (step % between == 0 or step == self._last_step)

    def _is_save_due(self) -> bool:
        minutes = (time.monotonic() - self._saved) / 60
        return self.is_chief and minutes > self._config.train.checkpoint_minutes

    def _report(self, step: int, *, check_weights: bool) -> None:
        """Show the loss of the latest step, after a check that all of them, and the weights, are finite."""
        self._guard.check(weights=check_weights)
        values = {name: float(self._outcome[name]) for name in ("loss", "gradient_norm")}
        self._bar.set_description(f"training, loss {values['loss']:.1f}", refresh=False)
        if self.is_chief:
            values["learning_rate"] = float(self._state.optimizer.learning_rate)
            factor = self._outcome["outputs"]["precision_factor"]
            first_part = self._strategy.experimental_local_results(factor)[0]
            with writing("TensorBoard's files"):
                self._summaries.training(step, values, first_part)

    def _interrupted(self, step: int) -> Interrupted:
        return self._signals.interrupted(
            f"step {step} is saved in {self._run}; the same command goes on from there"
        )


def recipe_of(config: Config) -> dataset.Recipe:
    """Return what of a configuration decides the batches."""
    return dataset.Recipe(
        config.data,
        config.augmentation,
        config.model.image_size,
        config.train.batch_size,
        config.train.epochs,
        config.train.steps_per_epoch,
        config.train.seed,
    )


def _check_metric(name: str | None, landmark_set: LandmarkSet) -> None:
    """Raise ValueError if the metric to choose the best by is not measured on these landmarks."""
    name = name or ""
    needed = "pckh" if name.startswith("pckh") else "nme"
    if name.startswith(("nme", "failure", "auc", "pckh")) and needed != landmark_set.metric:
        raise ValueError(
            f"train.best_metric = {name!r} is not measured on {landmark_set.name}, whose metric is "
            f"{landmark_set.metric}"
        )


def _score(metrics: dict, name: str | None) -> float:
    """Return the metric to choose the best by, negated where lower is better."""
    name = name or ("pckh_0.5" if "pckh_0.5" in metrics else "nme")
    return metrics[name] if name.startswith(("auc", "pckh")) else -metrics[name]
