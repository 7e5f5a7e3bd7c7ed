"""Trained models, read from their runs."""

from pathlib import Path

import tensorflow as tf

from tfhuber.config import schema
from tfhuber.console.files import read_json
from tfhuber.landmarks import known_sets
from tfhuber.model import network
from tfhuber.model.predictor import Predictor
from tfhuber.model.whitening import Whitening
from tfhuber.runs.checkpoints import restore_newest

__all__ = ["load_run", "read_config"]


def read_config(directory: str | Path) -> schema.Config:
    """Return the configuration of a training run.

    Raises:
      ValueError: if there is no such run.
      OSError: if it cannot be read.
    """
    file = Path(directory) / "run.json"
    values = read_json(file)
    if not isinstance(values, dict) or "config" not in values:
        raise ValueError(f"{file} is not a run's: it holds no configuration")
    return schema.parse(values["config"], str(file))


def load_run(directory: str | Path, checkpoint: str = "latest") -> Predictor:
    """Return the predictor of a training run; its `step` is that of the checkpoint that was read.

    Args:
      directory: what `python -m tfhuber.train --run` wrote.
      checkpoint: "latest" or "best".

    Raises:
      ValueError: if there is no such run or checkpoint; the message says what to do.
    """
    directory = Path(directory)
    try:
        values = read_json(directory / "run.json")
        config = schema.parse(values["config"], str(directory / "run.json"))
        landmark_set = known_sets.parse(values["landmark_set"])
        whitening = Whitening.load(directory / "whitening.json", landmark_set.count)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{directory} is no training run that can be read ({error}); "
            "make one with `python -m tfhuber.train --config configs/NAME.json --run DIR`"
        ) from error
    # The checkpoint holds all weights, so neither a preset nor the transferred run is needed.
    options = config.model.model_copy(update={"pretrained": None, "transfer": None})
    model = network.build(options, landmark_set.count)
    step = restore_newest(tf.train.Checkpoint(model=model), directory / checkpoint)
    if step is None:
        raise ValueError(f"{directory / checkpoint} holds no checkpoint yet; train longer")
    size = config.train.batch_size
    return Predictor(model, whitening, config.model, landmark_set, size, step)
