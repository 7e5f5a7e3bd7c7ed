"""Training and continuing of a run.

The same run started again continues where the last checkpoint stands, and ends with the same weights as
an undisturbed one. SIGTERM and an interrupt (Ctrl-C) save the step that is under way first.
"""

import contextlib
import time
from pathlib import Path

from tfhuber.config.schema import Config
from tfhuber.console.cli import progress
from tfhuber.console.files import write_json
from tfhuber.console.signals import Interrupted, Watch
from tfhuber.landmarks.known_sets import LandmarkSet
from tfhuber.runs.directory import claim, fit_whitening

__all__ = ["train"]


def train(config: Config, run_directory: str | Path, *, quiet: bool = False) -> dict:
    """Trains or continues a run, then evaluates it.

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
      OSError: if something cannot be written; the checkpoints there stay good.
      ConnectionError: if another worker of a distributed training is lost.
      Interrupted: a KeyboardInterrupt, after SIGTERM or SIGINT to this or another of its processes.
    """
    with Watch() as watch:
        try:
            return _train(config, Path(run_directory), quiet, watch)
        except ConnectionError as error:
            if watch.received is None:
                raise
            raise watch.interrupted() from error


def _train(config: Config, run: Path, quiet: bool, watch: Watch) -> dict:
    import keras
    import tensorflow as tf

    from tfhuber.data import dataset
    from tfhuber.evaluation import summary
    from tfhuber.evaluation.predictions import collect
    from tfhuber.model.predictor import Predictor
    from tfhuber.model.whitening import Whitening
    from tfhuber.runs.checkpoints import Checkpoints, tidy, writing
    from tfhuber.runs.directory import RunFile
    from tfhuber.runs.load import load_run
    from tfhuber.training import step as loop
    from tfhuber.training import strategy as distribution
    from tfhuber.training import tensorboard
    from tfhuber.training.finite_guard import Guard
    from tfhuber.training.state import State, carry_over

    strategy = distribution.strategy_for(config.train.distribution)
    watch.listen()  # that of several workers takes SIGTERM for itself
    chief = distribution.is_chief(strategy)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.train.seed)
    split = dataset.open_split(config.data.directory, config.data.train_split)
    held_out = dataset.open_split(config.data.directory, config.data.evaluation_split)
    steps = dataset.steps_per_epoch(split, config)
    _check_metric(config, held_out.landmark_set)
    if chief:
        claim(run, config, split.landmark_set)
        tidy(run)
        fit_whitening(run, config, split)
    distribution.agree(0, strategy)  # that the others read what the chief has written
    whitening = Whitening.load(run / "whitening.json", split.landmark_set.count)

    with strategy.scope():
        state = State.create(config, split.landmark_set.count, steps)
    checkpoints = Checkpoints(run, state.kept)
    if not checkpoints.restore() and config.model.transfer is not None:
        carry_over(load_run(config.model.transfer).model, state.model)
    predictor = Predictor(
        state.evaluated, whitening, config.model, split.landmark_set, config.train.batch_size
    )
    first, last = state.step, steps * config.train.epochs
    if distribution.agree(first, strategy) != first:
        raise ValueError(f"{run} holds other checkpoints here than for the first worker; share it")
    between = steps * config.train.evaluation_epochs
    patience = steps * (config.train.early_stop_epochs or config.train.epochs)
    # An evaluation follows its checkpoint, so it may have been what the run ended in.
    again = first > 0 and (first % between == 0 or first == last)
    if chief:
        run_file = RunFile(run, config.train.batch_size)
        with writing(f"TensorBoard's files to {run / 'logs'}"):
            summaries = tensorboard.Summaries(
                run / "logs", first + (not again), predictor, held_out
            )

    def saved_at(step):
        return watch.interrupted(
            f"step {step} is saved in {run}; the same command goes on from there"
        )

    def evaluate_and_keep(step):
        """The metrics, in the chief, and whether training ends here for want of better ones."""
        metrics, over = {}, False
        if chief:
            # A signal waits for nothing here: the step is saved. The others are told below.
            with contextlib.suppress(Interrupted), watch.at_once(), run_file.evaluating(step):
                predictions = collect(predictor, held_out)
                metrics = summary.evaluate(predictor, held_out, "none", predictions)
                with writing("TensorBoard's files"):
                    summaries.evaluation(step, metrics, predictions)
        if metrics:
            checkpoints.keep_best(step, _score(metrics, config.train.best_metric))
            run_file.save(step, metrics, checkpoints.best_step == step)
            over = step - checkpoints.best_step >= patience
            bar.set_postfix_str(summary.headline(metrics), refresh=False)
        stop, over = distribution.any_of([watch.received is not None, over], strategy)
        if stop:
            raise saved_at(step)
        return metrics, over

    step_fn = loop.training_step(state, whitening, config, strategy)
    guard = Guard(run, state, split, config, strategy)
    votes = distribution.Votes(strategy, first)
    batch_size = config.train.batch_size
    bar = progress(total=last * batch_size, desc="training", unit="img", initial=first * batch_size)
    bar.disable = quiet or not chief
    metrics, over = {}, False
    watch.defer()
    with bar:
        if again:
            metrics, over = evaluate_and_keep(first)
        batches = distribution.distribute(
            lambda part: dataset.training_batches(split, config, start_step=first, part=part),
            batch_size,
            strategy,
        )
        saved = time.monotonic()
        for step, batch in enumerate(() if over else dataset.readable(batches, split), first + 1):
            with distribution.lost_workers_named():
                report = step_fn(batch)
            guard.hold(step, report)
            bar.update(batch_size)
            due = chief and time.monotonic() - saved > 60 * config.train.checkpoint_minutes
            stop, due = votes(step, [watch.received is not None, due])
            evaluated = step % between == 0 or step == last
            keep = stop or due or evaluated
            if step % 20 == 0 or keep:
                guard.check(weights=keep)
                values = {name: float(report[name]) for name in ("loss", "gradient_norm")}
                bar.set_description(f"training, loss {values['loss']:.1f}", refresh=False)
                if chief:
                    values["learning_rate"] = float(state.optimizer.learning_rate)
                    factor = report["outputs"]["precision_factor"]
                    own = strategy.experimental_local_results(factor)[0]
                    with writing("TensorBoard's files"):
                        summaries.training(step, values, own)
            if chief and keep:
                checkpoints.save(step)
                run_file.save(step)
                saved = time.monotonic()
            if stop:
                distribution.agree(0, strategy)  # that nobody ends before it is saved
                raise saved_at(step)
            if evaluated:
                metrics, over = evaluate_and_keep(step)
                if over:
                    break
    if chief:
        write_json(run / "metrics.json", metrics)
    return metrics


def _check_metric(config: Config, landmark_set: LandmarkSet) -> None:
    name = config.train.best_metric or ""
    needed = "pckh" if name.startswith("pckh") else "nme"
    if name.startswith(("nme", "failure", "auc", "pckh")) and needed != landmark_set.metric:
        raise ValueError(
            f"train.best_metric = {name!r} is not measured on {landmark_set.name}, whose metric is "
            f"{landmark_set.metric}"
        )


def _score(metrics: dict, name: str | None) -> float:
    """Higher is better."""
    name = name or ("pckh_0.5" if "pckh_0.5" in metrics else "nme")
    return metrics[name] if name.startswith(("auc", "pckh")) else -metrics[name]
