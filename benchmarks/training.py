"""The rate of the training step, and of what feeds it: `python -m benchmarks.training`.

For each backbone, images a second of

- the backbone alone on random images: forward and backward, and the step with Adam's update besides,
- the full step of `tfhuber.train` on random images, and
- the full step on TFRecords, with the recipe's whole augmentation,

in turns; and of the input alone, with stored crops decoded once and kept in memory, as `tfhuber.train`
does where they fit, and decoded each time. What the warp costs as one batched operation on the device,
which tf.data spares it, stands beside these. Without `--data`, the TFRecords are made of drawn faces of
1,024 pixels, as large as WFLW's photographs.

The exit status is 1 if the full step on TFRecords has less than 0.95 of the rate of the backbone's step,
or the input alone gives fewer than 600 images a second either way.
"""

import argparse
import contextlib
import functools
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.make_tfrecords import make_sources
from benchmarks.paired_timing import (
    Times,
    median_and_least,
    ratio,
    time_in_turns,
    time_repeats,
)
from pipelines import make_tfrecords
from tfhuber.config import schema
from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.cpus import available_cpus
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    import tensorflow as tf

    from tfhuber.data import augmentation, dataset, records
    from tfhuber.distributions import radial
    from tfhuber.geometry import projective
    from tfhuber.model import whitening
    from tfhuber.training import optimizer, state, step, trainer
else:
    tf = lazy_module("tensorflow")
    augmentation = lazy_module("tfhuber.data.augmentation")
    dataset = lazy_module("tfhuber.data.dataset")
    records = lazy_module("tfhuber.data.records")
    radial = lazy_module("tfhuber.distributions.radial")
    projective = lazy_module("tfhuber.geometry.projective")
    whitening = lazy_module("tfhuber.model.whitening")
    optimizer = lazy_module("tfhuber.training.optimizer")
    state = lazy_module("tfhuber.training.state")
    step = lazy_module("tfhuber.training.step")
    trainer = lazy_module("tfhuber.training.trainer")

__all__ = ["main"]

GRADIENTS, BACKBONE = "backbone, no update", "backbone, step"
RANDOM, RECORDS = "full step, random", "full step, TFRecords"
LEAST_OF_BACKBONE, LEAST_INPUT = 0.95, 600
PICTURES = 400


def main() -> int:
    """Measure everything, print the tables and say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a converted data set (default: drawn faces)")
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "resnet50"], metavar="NAME")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7, help="of each kind of step")
    parser.add_argument("--steps", type=int, default=2, help="timed ones in a turn")
    parser.add_argument("--precision", default="float32", help="as train.precision")
    parser.add_argument("--xla", default="loss", help="as train.xla")
    args = parser.parse_args()
    for name in ("batch", "turns", "steps"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")

    with contextlib.ExitStack() as stack:
        data = args.data or stack.enter_context(drawn_faces(args.image_size))
        configs = {name: make_config(name, data, args) for name in args.backbones}
        import_tensorflow()
        tf.config.experimental.enable_op_determinism()  # as `tfhuber.train` does
        device = (
            "GPU" if tf.config.list_physical_devices("GPU") else f"{available_cpus()} CPU cores"
        )
        print(
            f"batches of {args.batch} at {args.image_size} pixels, {args.precision}, XLA: {args.xla}; "
            f"{device}, TensorFlow {tf.__version__}"
        )
        kept = [report_input(configs[args.backbones[0]], args.turns)]
        for name, config in configs.items():
            steps = make_steps(config)
            turns = {
                each: functools.partial(time_repeats, steps[each], args.steps) for each in steps
            }
            times = time_in_turns(turns, args.turns, desc=name)
            kept.append(report_steps(name, times, args.batch))
    return 0 if all(kept) else 1


@contextlib.contextmanager
def drawn_faces(size: int) -> Iterator[Path]:
    """Yield a temporary converted data set whose stored crops suit networks of that size."""
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        make_sources(directory, {"faces": PICTURES})
        options = ["--source", str(directory / "faces"), "--output", str(directory / "records")]
        options += ["--dataset", "wflw", "--size", str(size), "--shard-examples", "100"]
        with contextlib.redirect_stdout(sys.stderr):
            make_tfrecords.main(options)
        yield directory / "records"


def make_config(backbone: str, data: Path, args: argparse.Namespace) -> schema.Config:
    """Return the recipe's configuration with that backbone, for more steps than anybody will time."""
    return schema.parse(
        {
            "data": {"directory": str(data)},
            "model": {"backbone": backbone, "image_size": args.image_size},
            "train": {
                "batch_size": args.batch,
                "epochs": 1_000_000,
                "precision": args.precision,
                "xla": args.xla,
            },
        },
        "the benchmark's options",
    )


def report_input(config: schema.Config, turns: int) -> bool:
    """Time the input alone, print its rates, and return whether they are as required."""
    kept = config.data.model_copy(update={"cache_gigabytes": 64.0})
    read = config.data.model_copy(update={"cache_gigabytes": 0.0})
    datas = {"input, crops kept decoded": kept, "input, crops decoded each time": read}
    ways = {name: config.model_copy(update={"data": data}) for name, data in datas.items()}
    good = True
    for name, way in ways.items():
        rates = input_rates(way, turns)
        good &= (rate := statistics.median(rates)) >= LEAST_INPUT
        print(
            f"{name:32}{rate:9.1f} images/s (fastest {max(rates):.1f}; >= {LEAST_INPUT} is required)"
        )
    rates = warp_rates(config, turns)
    print(f"{'the warp, batched on the device':32}{statistics.median(rates):9.1f} images/s")
    return good


def warp_rates(config: schema.Config, turns: int) -> list[float]:
    """Return images a second of the augmenting warp, one operation for a batch of padded uint8 crops."""
    split = dataset.open_split(config.data.directory, config.data.train_split)
    count, size = config.train.batch_size, config.model.image_size
    crops, maps = [], []
    for i, record in enumerate(tf.data.TFRecordDataset(split.paths).take(count)):
        example = records.parse(record, split.landmark_set)
        crops.append(tf.io.decode_jpeg(example["image"], channels=3).numpy())
        plain = projective.box_to_crop(example["box"], size, split.landmark_set.square)
        random, _ = augmentation.random_map(
            tf.constant([i, 0], tf.int64), size, config.augmentation
        )
        h = projective.compose(random, projective.compose(plain, example["crop_to_original"]))
        to_crop = projective.invert(h)
        maps.append(tf.reshape(to_crop / to_crop[2, 2], [9])[:8])
    rows, columns = (max(crop.shape[axis] for crop in crops) for axis in (0, 1))
    padding = [[(0, rows - crop.shape[0]), (0, columns - crop.shape[1]), (0, 0)] for crop in crops]
    images = tf.constant([np.pad(*each, mode="edge") for each in zip(crops, padding, strict=True)])
    maps = tf.stack(maps)

    @tf.function
    def warp() -> "tf.Tensor":
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(images, tf.float32),
            transforms=maps,
            output_shape=tf.constant([size, size], tf.int32),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )[:, 0, 0, 0]

    milliseconds = time_repeats(lambda: warp().numpy(), 3 * turns)
    return [1000 * len(crops) / each for each in milliseconds]


def input_rates(config: schema.Config, turns: int, images: int = 1600) -> list[float]:
    """Return images a second of the input alone, after a start that is not timed."""
    batches = iter(training_batches(config))
    size = config.train.batch_size
    count = -(-images // size)
    for _ in itertools.islice(batches, count // 2):
        pass
    rates = []
    for _ in range(turns):
        start = time.perf_counter()
        for _ in itertools.islice(batches, count):
            pass
        rates.append(count * size / (time.perf_counter() - start))
    return rates


def training_batches(config: schema.Config) -> "tf.data.Dataset":
    """Return the batches that `tfhuber.train` would take."""
    split = dataset.open_split(config.data.directory, config.data.train_split)
    return dataset.training_batches(split, trainer.recipe_of(config))


def make_steps(config: schema.Config) -> dict[str, Callable[[], object]]:
    """Return the kinds of step, each of which waits for its result."""
    split = dataset.open_split(config.data.directory, config.data.train_split)
    landmarks, size = split.landmark_set.count, config.model.image_size
    recipe = trainer.recipe_of(config)
    epoch_steps = dataset.steps_per_epoch(split, recipe)
    trained = state.State.create(config.model, config.train, landmarks, epoch_steps)
    whitener = whitening.fit(dataset.augmented_labels(split, recipe, 1000), landmarks, size)
    energy = radial.radial_energy(config.model.family, config.model.delta)
    train = step.training_step(
        trained, whitener, energy, config.train, tf.distribute.get_strategy()
    )
    batches = iter(training_batches(config))
    first = next(batches)
    images = tf.random.stateless_uniform(first["image"].shape, [0, 0], maxval=255.0)
    backbone = trained.model.get_layer("backbone")
    variables = backbone.trainable_variables
    adam = optimizer.Adam(1e-3)
    adam.build(variables)

    def gradients(images: "tf.Tensor") -> tuple[list, "tf.Tensor"]:
        with tf.GradientTape() as tape:
            features = backbone(images, training=True)
            mean = tf.reduce_mean(tf.cast(features, tf.float32))
        return tape.gradient(mean, variables), mean

    @tf.function
    def gradients_alone() -> tuple["tf.Tensor", list]:
        found, mean = gradients(images)
        return mean, found

    @tf.function
    def backbone_step() -> "tf.Tensor":
        found, mean = gradients(images)
        adam.apply(found, variables)
        return mean

    def full_step(batch: dict) -> float:
        return float(train(batch)["loss"])

    return {
        GRADIENTS: lambda: float(gradients_alone()[0]),
        BACKBONE: lambda: float(backbone_step()),
        RANDOM: lambda: full_step({**first, "image": images}),
        RECORDS: lambda: full_step(next(batches)),
    }


def report_steps(name: str, times: Times, batch: int) -> bool:
    """Print the rates of a backbone's steps and their ratio; return whether that is as required."""
    print(name)
    for kind, rounds in times.items():
        median, fastest = (1000 * batch / milliseconds for milliseconds in median_and_least(rounds))
        print(f"  {kind:24}{median:9.2f} images/s (fastest {fastest:.2f})")
    share = ratio(times, BACKBONE, RECORDS)
    print(f"  {RECORDS} over {BACKBONE}: {share:.3f} (>= {LEAST_OF_BACKBONE} is required)")
    print(f"  {RECORDS} over {GRADIENTS}: {ratio(times, GRADIENTS, RECORDS):.3f}")
    return share >= LEAST_OF_BACKBONE


if __name__ == "__main__":
    run_main(main)
