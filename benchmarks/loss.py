"""What the head and the loss cost: `python -m benchmarks.loss`.

Part one times the SPD map with the loss (eq. 6), forward and backward in graph mode, against the same
mathematics written with `tf.linalg.eigh` and automatic differentiation. Part two times a training
step of ResNet-50 at 224 x 224 with 98 landmarks, and the head with the loss alone.

Repeats of what is compared are interleaved, so that a busy machine slows both alike; ratios are those
of the medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from tfhuber.cli import progress, run_main

__all__ = ["main"]

LANDMARKS = 98


def main() -> None:
    """Runs both parts and prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="batch of the loss alone")
    parser.add_argument("--backbone-batch", type=int, default=8, help="batch of the whole step")
    parser.add_argument("--repeats", type=int, default=30, help="timed repeats of the loss alone")
    parser.add_argument("--skip-backbone", action="store_true", help="only the loss alone")
    args = parser.parse_args()
    for name in ("batch", "backbone_batch", "repeats"):
        if getattr(args, name) < 1:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option} must be at least 1, got {getattr(args, name)}.")

    times = time_interleaved(loss_steps(args.batch), args.repeats, desc="loss")
    print(f"SPD map and loss, forward and backward, ({args.batch}, {LANDMARKS}) landmarks in 2-D")
    print_table(times)
    print(f"  closed form against eigh: {ratio(times, 'eigh', 'closed form'):.1f} times faster")
    if args.skip_backbone:
        return

    repeats = max(3, args.repeats // 5)
    times = time_interleaved(training_steps(args.backbone_batch), repeats, desc="training step")
    print(f"\nTraining step, ResNet-50 at 224 x 224, batch {args.backbone_batch}")
    print_table(times)
    share = ratio(times, "head and loss", "whole step")
    print(f"  head and loss: {100 * share:.2f} % of the step")


def loss_steps(batch: int) -> dict[str, Callable[[], object]]:
    """Compiled steps from raw outputs (nu and the vector) to the loss and its gradients."""
    import tensorflow as tf

    from tfhuber.elliptical import negative_log_likelihood
    from tfhuber.radial import Huber
    from tfhuber.spd import g, log_g, spd_matrix, vector_to_symmetric

    radial = Huber(1.0)
    generator = tf.random.Generator.from_seed(0)
    y, nu = generator.normal([2, batch, LANDMARKS, 2])
    vector = generator.normal([batch, LANDMARKS, 3]) * 3

    def closed_form(nu, vector):
        matrix, log_det = spd_matrix(vector)
        return negative_log_likelihood(y, nu, matrix, log_det, radial)

    def by_eigh(nu, vector):
        eigenvalues, v = tf.linalg.eigh(vector_to_symmetric(vector))
        matrix = tf.matmul(v * g(eigenvalues)[..., tf.newaxis, :], v, transpose_b=True)
        residual = tf.linalg.matvec(matrix, y) - nu
        log_det = tf.reduce_sum(log_g(eigenvalues), axis=-1)
        return radial.energy(tf.reduce_sum(tf.square(residual), axis=-1)) - log_det

    def step(loss_function):
        @tf.function
        def loss_and_gradients(nu, vector):
            with tf.GradientTape() as tape:
                tape.watch([nu, vector])
                loss = tf.reduce_mean(tf.reduce_sum(loss_function(nu, vector), axis=-1))
            return loss, tape.gradient(loss, [nu, vector])

        return lambda: loss_and_gradients(nu, vector)

    return {"closed form": step(closed_form), "eigh": step(by_eigh)}


def training_steps(batch: int) -> dict[str, Callable[[], object]]:
    """Compiled forward and backward passes: of the whole model, and of head and loss alone."""
    import tensorflow as tf

    from tfhuber import config, model
    from tfhuber.elliptical import negative_log_likelihood
    from tfhuber.radial import Huber

    network = model.build(config.Model(backbone="resnet50", image_size=224), LANDMARKS)
    head, radial = network.get_layer("head"), Huber(1.0)
    generator = tf.random.Generator.from_seed(0)
    images = generator.uniform([batch, 224, 224, 3], maxval=255)
    features = generator.normal([batch, network.get_layer("features").output.shape[-1]])
    y = generator.normal([batch, LANDMARKS, 2])

    def loss_of(outputs):
        loss = negative_log_likelihood(
            y, outputs["nu"], outputs["precision_factor"], outputs["log_det"], radial
        )
        return tf.reduce_mean(tf.reduce_sum(loss, axis=-1))

    @tf.function
    def whole_step():
        with tf.GradientTape() as tape:
            loss = loss_of(network(images, training=True))
        return loss, tape.gradient(loss, [v.value for v in network.trainable_variables])

    @tf.function
    def head_step():
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = loss_of(head(features))
        sources = [features, *(v.value for v in head.trainable_variables)]
        return loss, tape.gradient(loss, sources)

    return {"whole step": whole_step, "head and loss": head_step}


def time_interleaved(
    steps: dict[str, Callable[[], object]], repeats: int, desc: str
) -> dict[str, list[float]]:
    """Milliseconds of each step, taken in turn after two untimed rounds."""
    import tensorflow as tf

    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in progress(range(-2, repeats), desc=desc, unit="round"):
        for name, step in steps.items():
            start = time.perf_counter()
            # Fetching a value waits until an accelerator has finished as well.
            tf.nest.map_structure(lambda x: tf.convert_to_tensor(x).numpy(), step())
            if repeat >= 0:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def ratio(times: dict[str, list[float]], numerator: str, denominator: str) -> float:
    """Ratio of two steps' median times."""
    return statistics.median(times[numerator]) / statistics.median(times[denominator])


def print_table(times: dict[str, list[float]]) -> None:
    print(f"  {'':16}{'median':>12}{'fastest':>12}")
    for name, milliseconds in times.items():
        median, fastest = statistics.median(milliseconds), min(milliseconds)
        print(f"  {name:16}{median:9.2f} ms{fastest:9.2f} ms")


if __name__ == "__main__":
    run_main(main)
