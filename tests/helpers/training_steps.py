"""Training steps and states of a whole configuration."""

from collections.abc import Callable

import tensorflow as tf

from tfhuber.config.schema import Config
from tfhuber.distributions.radial import radial_energy
from tfhuber.model.whitening import Whitening
from tfhuber.training.state import State
from tfhuber.training.step import training_step


def make_state(config: Config, landmark_count: int = 98, steps_per_epoch: int = 5) -> State:
    """Return the state before the first step."""
    return State.create(config.model, config.train, landmark_count, steps_per_epoch)


def make_step(state: State, whitening: Whitening, config: Config) -> Callable:
    """Return the training step under the current strategy."""
    energy = radial_energy(config.model.family, config.model.delta)
    strategy = tf.distribute.get_strategy()
    return training_step(state, whitening, energy, config.train, strategy)
