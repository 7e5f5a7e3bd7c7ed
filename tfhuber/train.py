"""Trains a model: `python -m tfhuber.train --config configs/wflw.json --data DIR --run DIR`.

The same command started again continues where the last checkpoint stands, and ends with the same
weights as an undisturbed run.
"""

import argparse
import math
import time
from pathlib import Path

from tfhuber import config as configuration
from tfhuber import provenance
from tfhuber.cli import import_tensorflow, progress, run_main
from tfhuber.config import Config
from tfhuber.files import read_json, write_json
from tfhuber.landmarks import LandmarkSet, describe

__all__ = ["main", "train"]


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
      ValueError: if the data set is unusable, the directory holds a run of another configuration, or
        the loss stops being finite.
      ConnectionError: if another worker of a distributed training is lost.
    """
    import keras
    import tensorflow as tf

    from tfhuber import distribution, evaluate, inputs, loop
    from tfhuber.checkpoints import Checkpoints
    from tfhuber.inference import Predictor, load_run
    from tfhuber.whitening import Whitening

    strategy = distribution.strategy_for(config.train.distribution)
    chief = distribution.is_chief(strategy)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.train.seed)
    run = Path(run_directory)
    split = inputs.open_split(config.data.directory, config.data.train_split)
    held_out = inputs.open_split(config.data.directory, config.data.evaluation_split)
    steps = inputs.steps_per_epoch(split, config)
    _check_metric(config, held_out.landmark_set)
    if chief:
        _claim(run, config, split.landmark_set)
        _fit_whitening(run, config, split)
    distribution.agree(0, strategy)  # that the others read what the chief has written
    whitening = Whitening.load(run / "whitening.json", split.landmark_set.count)

    with strategy.scope():
        state = loop.State.create(config, split.landmark_set.count, steps)
    checkpoints = Checkpoints(run, state.kept)
    if not checkpoints.restore() and config.model.transfer is not None:
        loop.carry_over(load_run(config.model.transfer).model, state.model)
    predictor = Predictor(state.evaluated, whitening, config, split.landmark_set)
    first, last = state.step, steps * config.train.epochs
    if distribution.agree(first, strategy) != first:
        raise ValueError(f"{run} holds other checkpoints here than for the first worker; share it")
    between = steps * config.train.evaluation_epochs
    patience = steps * (config.train.early_stop_epochs or config.train.epochs)
    logs = str(run / "logs")
    summaries = tf.summary.create_file_writer(logs) if chief else tf.summary.create_noop_writer()

    def evaluate_and_keep(step):
        """The metrics, in the chief, and whether training ends here for want of better ones."""
        metrics, over = {}, False
        if chief:
            metrics = evaluate.evaluate(predictor, held_out)
            checkpoints.keep_best(step, _score(metrics, config.train.best_metric))
            _summarise(summaries, step, metrics)
            over = step - read_json(run / "best.json")["step"] >= patience
            bar.set_postfix_str(evaluate.headline(metrics), refresh=False)
        return metrics, bool(distribution.agree(int(over), strategy))

    step_fn = loop.training_step(state, whitening, config, strategy)
    batch_size = config.train.batch_size
    bar = progress(total=last * batch_size, desc="training", unit="img", initial=first * batch_size)
    bar.disable = quiet or not chief
    metrics, over = {}, False
    # An evaluation follows its checkpoint, so it may have been what the run ended in.
    if first > 0 and (first % between == 0 or first == last):
        metrics, over = evaluate_and_keep(first)
    batches = distribution.distribute(
        lambda part: inputs.training_batches(split, config, start_step=first, part=part),
        batch_size,
        strategy,
    )
    saved = time.monotonic()
    for step, batch in enumerate(() if over else inputs.readable(batches, split), first + 1):
        with distribution.lost_workers_named():
            report = step_fn(batch)
        bar.update(batch_size)
        due = chief and time.monotonic() - saved > 60 * config.train.checkpoint_minutes
        evaluated = step % between == 0 or step == last
        if step % 20 == 0 or due or evaluated:
            _report(step, report, state, summaries, bar, run)
        if chief and (due or evaluated):
            checkpoints.save(step)
            saved = time.monotonic()
        if evaluated:
            metrics, over = evaluate_and_keep(step)
            if over:
                break
    bar.close()
    if chief:
        write_json(run / "metrics.json", metrics)
    return metrics


def _claim(run: Path, config: Config, landmark_set: LandmarkSet) -> None:
    """Writes `run.json`, or checks that the run that is there has this configuration."""
    path = run / "run.json"
    if path.is_file():
        try:
            there = configuration.parse(read_json(path)["config"], str(path))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged ({error}); delete {run} or choose another --run"
            ) from error
        changed = configuration.differences(there, config)
        if changed:
            raise ValueError(
                f"{run} holds a run of another configuration (there, here): {'; '.join(changed)}; "
                "choose another --run or delete it"
            )
        return
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise ValueError(f"{run} exists and is no training run; choose another --run")
    run.mkdir(parents=True, exist_ok=True)
    values = {
        "config": config.model_dump(mode="json"),
        "landmark_set": describe(landmark_set),
        "provenance": provenance.describe(config.data.directory),
    }
    write_json(path, values)


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


def _fit_whitening(run: Path, config: Config, split) -> None:
    from tfhuber import inputs, whitening

    path = run / "whitening.json"
    if not path.is_file():
        labels = inputs.augmented_labels(split, config)
        count, size = split.landmark_set.count, config.model.image_size
        whitening.fit(inputs.readable(labels, split), count, size).save(path)


def _report(step, report, state, summaries, bar, run):
    loss = float(report["loss"])
    gradient_norm = float(report["gradient_norm"])
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        raise ValueError(
            f"the loss is {loss} and its gradient {gradient_norm} at step {step}; the last good "
            f"checkpoint is in {run / 'latest'}; lower train.learning_rate or look at the labels"
        )
    values = {"loss": loss, "learning_rate": float(state.optimizer.learning_rate)}
    values["gradient_norm"] = gradient_norm
    if bar.format_dict["rate"]:
        values["images_per_second"] = bar.format_dict["rate"]
    _summarise(summaries, step, values)
    bar.set_description(f"training, loss {loss:.1f}", refresh=False)


def _summarise(summaries, step, values):
    import tensorflow as tf

    with summaries.as_default(step=step):
        for name, value in values.items():
            if isinstance(value, int | float):
                tf.summary.scalar(name, value)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tfhuber.train", description=__doc__)
    parser.add_argument("--config", required=True, help="a JSON file such as configs/wflw.json")
    parser.add_argument("--data", help="the converted data set; replaces data.directory")
    parser.add_argument("--run", help="the run's directory (default: runs/NAME of the config file)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY.PATH=VALUE",
        help="replaces one value, e.g. --set train.epochs=3; may be repeated",
    )
    arguments = parser.parse_args()
    config = configuration.load(arguments.config, arguments.set, data=arguments.data)
    run = Path(arguments.run or Path("runs") / Path(arguments.config).stem)
    import_tensorflow()
    metrics = train(config, run)

    from tfhuber import evaluate

    if metrics:
        print(f"run {run}: {evaluate.headline(metrics)}")
    return 0


if __name__ == "__main__":
    run_main(main)
