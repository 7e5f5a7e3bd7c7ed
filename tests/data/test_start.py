"""What a training waits for before its first step is short: no code rewritten, few labels drawn again."""

import sys
from pathlib import Path

import pytest

from tfhuber.data import dataset
from tfhuber.training.trainer import recipe_of


@pytest.fixture
def split(tiny_config) -> dataset.Split:
    return dataset.open_split(tiny_config.data.directory, "train")


@pytest.mark.parametrize(("minimum", "epochs"), [(1, 1), (95, 3), (20_000, 100)])
def test_labels_are_drawn_in_whole_epochs_a_hundred_at_most(split, tiny_config, minimum, epochs):
    batches = dataset.augmented_labels(split, recipe_of(tiny_config), minimum)
    assert split.examples == 47
    assert sum(len(points) for points, _ in batches) == epochs * split.examples


def test_autograph_rewrites_nothing(split, tiny_config):
    """A converted function is in a module that TensorFlow has written, with `tf__` before its name."""
    recipe = recipe_of(tiny_config)
    next(iter(dataset.training_batches(split, recipe)))
    next(iter(dataset.evaluation_batches(split, 32, 8, [3, 4])))
    next(iter(dataset.augmented_labels(split, recipe, 1)))
    written = [m.__file__ for name, m in sys.modules.items() if "__autograph_generated" in name]
    code = "".join(Path(file).read_text() for file in written if Path(file).exists())
    ours = ("prepare", "one_epoch", "epoch_examples", "shuffled_places", "parse")
    assert [name for name in ours if f"def tf__{name}(" in code] == []
