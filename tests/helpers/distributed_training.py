"""The training of a small network under one strategy: `distributed_training.py MODE OUTPUT`.

MODE is one_device, mirrored (two virtual devices) or multi_worker (by TF_CONFIG). Everything is float64,
so that numbers which differ by more than rounding cannot hide. OUTPUT gets, as .npz, the ids that each
replica of this process saw at each step, the reports of each step, and all variables at the end.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from tfhuber.config import schema
from tfhuber.distributions.radial import radial_energy
from tfhuber.model import network as model
from tfhuber.model import whitening
from tfhuber.training import strategy as distribution
from tfhuber.training.optimizer import Adam, PiecewiseLinear
from tfhuber.training.state import State
from tfhuber.training.step import training_step

# 7 does not divide by 2; the clip is about the median norm, so that some steps are clipped.
BATCH, STEPS, CLIP, K = 7, 6, 1.0, 5


def network() -> keras.Model:
    """Return what the real one has: convolution, batch normalisation (nested, too), pooling, head."""
    nested = keras.Sequential(
        [keras.layers.Conv2D(6, 3, use_bias=False), keras.layers.BatchNormalization()]
    )
    image = keras.Input((16, 16, 3))
    features = keras.layers.Conv2D(6, 4, strides=4, use_bias=False)(image)
    features = keras.layers.BatchNormalization(momentum=0.8)(features)
    features = nested(keras.layers.ReLU()(features))
    features = keras.layers.DepthwiseConv2D(2, name="channelwise_convolution")(features)
    features = keras.layers.Flatten()(features)
    return keras.Model(image, model.DistributionHead(K, dtype="float64", name="head")(features))


def batches(part: slice) -> tf.data.Dataset:
    """Return batches with weights of 0, 1 and fractions, nearly all of them in the first replica."""
    rng = np.random.default_rng(0)
    n = BATCH * STEPS
    weights = rng.choice([0.0, 1.0, 0.25, 0.7], (n, K))
    weights[np.arange(n) % BATCH > 3] *= rng.random((K,)) < 0.3
    values = {
        "image": rng.uniform(0, 1, (n, 16, 16, 3)) ** 3,
        "landmarks": rng.uniform(0, 16, (n, K, 2)),
        "weights": weights,
        "id": np.arange(n),
    }
    return (
        tf.data.Dataset.from_tensor_slices(values)
        .batch(BATCH)
        .map(lambda batch: {name: value[part] for name, value in batch.items()})
    )


def main(mode: str, output: str) -> None:
    """Train, and write what was seen to OUTPUT."""
    keras.config.set_floatx("float64")
    if mode == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        virtual = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, virtual)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    else:
        strategy = distribution.strategy_for(mode)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    options = schema.parse(
        {
            "data": {"directory": "unused"},
            "train": {"batch_size": BATCH, "gradient_clip": CLIP, "ema": 0.9},
        }
    )
    with strategy.scope():
        trained, average = network(), network()
        distribution.synchronise(trained, strategy)
        rate = PiecewiseLinear([(0, 1e-2)], 4)
        optimizer = Adam(rate, held=[0], held_steps=2, decayed=range(0, 9, 2), decay=0.1)
        optimizer.build(trained.trainable_variables)
    whitener = whitening.Whitening(np.full((K, 2), 8.0), np.tile(np.eye(2) / 4, (K, 1, 1)))
    state = State(trained, optimizer, average)
    step = training_step(state, whitener, radial_energy("huber", 1.0), options.train, strategy)
    ids, loss, norm = [], [], []
    for batch in distribution.distribute(batches, BATCH, strategy):
        seen = [v.numpy() for v in strategy.experimental_local_results(batch["id"])]
        report = step({name: batch[name] for name in ("image", "landmarks", "weights")})
        ids.append(np.concatenate(seen))
        loss.append(report["loss"].numpy())
        norm.append(report["gradient_norm"].numpy())
    values = {"ids": ids, "parts": [len(v) for v in seen], "loss": loss, "gradient_norm": norm}
    kinds = {"model": trained.weights, "average": average.weights, "adam": optimizer.variables}
    for kind, variables in kinds.items():
        values |= {f"{kind} {i} {v.path}": v.numpy() for i, v in enumerate(variables)}
    np.savez(output, **{name.replace("/", "|"): value for name, value in values.items()})
    distribution.barrier(strategy)


if __name__ == "__main__":
    main(*sys.argv[1:])
