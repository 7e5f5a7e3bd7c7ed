"""Trains a model: `python -m tfhuber.train --config configs/wflw.json --data DIR --run DIR`.

The same command started again continues where the last checkpoint stands, and ends with the same
weights as an undisturbed run.
"""

import argparse
import math
import time
from pathlib import Path

from tfhuber import config as configuration
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
      The metrics of the final weights, as in `metrics.json`.

    Raises:
      ValueError: if the data set is unusable, the directory holds a run of another configuration, or
        the loss stops being finite.
    """
    import keras
    import tensorflow as tf

    from tfhuber import evaluate, inputs, loop
    from tfhuber.checkpoints import Checkpoints
    from tfhuber.inference import Predictor, load_run

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.train.seed)
    run = Path(run_directory)
    split = inputs.open_split(config.data.directory, config.data.train_split)
    held_out = inputs.open_split(config.data.directory, config.data.evaluation_split)
    steps = inputs.steps_per_epoch(split, config)
    _claim(run, config, split.landmark_set)

    strategy = loop.strategy_for(config.train.distribution)
    whitening = _whitening(run, config, split)
    with strategy.scope():
        state = loop.State.create(config, split.landmark_set.count, steps)
    checkpoints = Checkpoints(run, state)
    if not checkpoints.restore() and config.model.transfer is not None:
        loop.carry_over(load_run(config.model.transfer).model, state.model)
    predictor = Predictor(state.model, whitening, config, split.landmark_set)

    def evaluate_and_keep(step):
        metrics = evaluate.evaluate(predictor, held_out)
        checkpoints.keep_best(step, metrics)
        _summarise(summaries, step, metrics)
        return metrics

    first, last = state.step, steps * config.train.epochs
    between = steps * config.train.evaluation_epochs
    summaries = tf.summary.create_file_writer(str(run / "logs"))
    step_fn = loop.training_step(state, whitening, config, strategy)
    batches = strategy.experimental_distribute_dataset(
        inputs.training_batches(split, config, start_step=first)
    )
    batch_size = config.train.batch_size
    # An evaluation follows its checkpoint, so it may have been what the run ended in.
    if first % between == 0 and 0 < first < last:
        evaluate_and_keep(first)
    bar = progress(total=last * batch_size, desc="training", unit="img", initial=first * batch_size)
    bar.disable = quiet
    saved = time.monotonic()
    for step, batch in enumerate(inputs.readable(batches, split), first + 1):
        report = step_fn(batch)
        bar.update(batch_size)
        due = time.monotonic() - saved > 60 * config.train.checkpoint_minutes
        evaluated = step % between == 0 and step < last
        if step % 20 == 0 or due or evaluated or step == last:
            _report(step, report, state, summaries, bar, run)
        if due or evaluated or step == last:
            checkpoints.save(step)
            saved = time.monotonic()
        if evaluated:
            metrics = evaluate_and_keep(step)
            bar.set_postfix_str(evaluate.headline(metrics), refresh=False)
    bar.close()

    metrics = evaluate_and_keep(last)
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
    values = {"config": config.model_dump(mode="json"), "landmark_set": describe(landmark_set)}
    write_json(path, values)


def _whitening(run: Path, config: Config, split):
    from tfhuber import inputs, whitening

    path = run / "whitening.json"
    if not path.is_file():
        labels = inputs.augmented_labels(split, config)
        count, size = split.landmark_set.count, config.model.image_size
        whitening.fit(inputs.readable(labels, split), count, size).save(path)
    return whitening.Whitening.load(path, split.landmark_set.count)


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

    print(f"run {run}: {evaluate.headline(metrics)}")
    return 0


if __name__ == "__main__":
    run_main(main)
