"""What the head and the loss cost: `python -m benchmarks.loss`.

Part one times the SPD map with the loss (eq. 6), forward and backward, against

- the same mathematics with `tf.linalg.eigh` and automatic differentiation,
- the same with `torch.linalg.eigh`, as anybody would write it in PyTorch, if that is installed, and
- the common alternative, which is another density: a Gaussian with a Cholesky factor, TensorFlow
  Probability's `MultivariateNormalTriL`, from the same five outputs.

TensorFlow's versions run operation by operation and compiled by XLA. Part two times a training step of
ResNet-50 at 224 x 224 with 98 landmarks, and the head with the loss alone.

What is compared runs in turn, so that a busy machine slows all alike; ratios are those of the medians.
PyTorch has a process of its own, because its threads and TensorFlow's slow each other down in one. The
exit status is 1 if the closed form is less than 10 times as fast as `eigh`, both operation by operation,
or, compiled, as PyTorch, or if versions of the same mathematics differ.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import importlib.util
import math
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.paired_timing import (
    REPEATS,
    Times,
    Turn,
    print_table,
    ratio,
    time_in_turns,
    time_repeats,
)
from tfhuber.config import schema
from tfhuber.console.cli import import_tensorflow, run_main
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_probability as tfp
    import torch

    from tfhuber.distributions import likelihood, radial
    from tfhuber.linalg import spd
    from tfhuber.model import network
else:  # PyTorch may not be installed, and its process loads no TensorFlow
    tf = lazy_module("tensorflow")
    tfp = lazy_module("tensorflow_probability")
    torch = lazy_module("torch")
    likelihood = lazy_module("tfhuber.distributions.likelihood")
    radial = lazy_module("tfhuber.distributions.radial")
    spd = lazy_module("tfhuber.linalg.spd")
    network = lazy_module("tfhuber.model.network")

__all__ = ["main"]

LANDMARKS = 98
LEAST_SPEED_UP, MOST_DIFFERENCE = 10, 1e-3

Step = Callable[[], list[np.ndarray]]


def main() -> int:
    """Run both parts, print their tables and return whether the bounds hold, as an exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="batch of the loss alone")
    parser.add_argument("--backbone-batch", type=int, default=8, help="batch of the whole step")
    parser.add_argument("--turns", type=int, default=20, help=f"of {REPEATS} timed repeats each")
    parser.add_argument("--threads", type=int, default=2, help="of TensorFlow, and of PyTorch")
    parser.add_argument(
        "--torch-compile",
        action="store_true",
        help="also PyTorch's version compiled by torch.compile, which wants a C++ compiler",
    )
    parser.add_argument("--skip-backbone", action="store_true", help="only the loss alone")
    args = parser.parse_args()
    for name in ("batch", "backbone_batch", "turns", "threads"):
        if getattr(args, name) < 1:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option} must be at least 1, got {getattr(args, name)}.")

    import_tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    inputs, no_torch = random_inputs(args.batch, np.float32), why_no_torch()
    steps = tensorflow_steps(*inputs)
    results = {name: step() for name, step in steps.items()}
    turns = {name: functools.partial(time_repeats, step) for name, step in steps.items()}
    with contextlib.ExitStack() as stack:
        if no_torch is None:
            worker = torch_process(inputs, args.threads, args.torch_compile)
            torch_results, torch_turns = stack.enter_context(worker)
            results, turns = results | torch_results, turns | torch_turns
        times = time_in_turns(turns, args.turns, desc="loss")

    devices = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    versions = [f"TensorFlow {tf.__version__}"]
    versions += [] if no_torch else [f"PyTorch {importlib.metadata.version('torch')}"]
    print(f"SPD map and loss, forward and backward, ({args.batch}, {LANDMARKS}) landmarks in 2-D")
    print(
        f"{' and '.join(versions)} on the {devices}, with {args.threads} threads within an "
        f"operation and {args.threads} between operations"
    )
    kept = report(times, results, no_torch)
    if args.skip_backbone:
        return 0 if kept else 1

    steps = training_steps(args.backbone_batch)
    turns = {name: functools.partial(time_repeats, step) for name, step in steps.items()}
    times = time_in_turns(turns, max(1, args.turns // 10), desc="training step")
    print(f"\nTraining step, ResNet-50 at 224 x 224, batch {args.backbone_batch}")
    print_table(times)
    share = ratio(times, "head and loss", "whole step")
    print(f"  head and loss: {100 * share:.2f} % of the step")
    return 0 if kept else 1


def random_inputs(batch: int, dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw points, and a network's raw outputs nu and vector: each [batch, 98, 2 or 3]."""
    generator = np.random.default_rng(0)

    def normal(scale: float, size: int) -> np.ndarray:
        return (scale * generator.normal(size=[batch, LANDMARKS, size])).astype(dtype)

    return normal(1, 2), normal(1, 2), normal(3, 3)


def tensorflow_steps(y: np.ndarray, nu: np.ndarray, vector: np.ndarray) -> dict[str, Step]:
    """Return steps from raw outputs to the loss and its gradients in nu and the vector, by name."""
    energy = radial.Huber(1.0)
    y, nu, vector = (tf.constant(array) for array in (y, nu, vector))

    def closed_form(nu: "tf.Tensor", vector: "tf.Tensor") -> "tf.Tensor":
        matrix, log_det = spd.spd_matrix(vector)
        return likelihood.negative_log_likelihood(y, nu, matrix, log_det, energy)

    def by_eigh(nu: "tf.Tensor", vector: "tf.Tensor") -> "tf.Tensor":
        eigenvalues, v = tf.linalg.eigh(spd.vector_to_symmetric(vector))
        matrix = tf.matmul(v * spd.g(eigenvalues)[..., tf.newaxis, :], v, transpose_b=True)
        residual = tf.linalg.matvec(matrix, y) - nu
        log_det = tf.reduce_sum(spd.log_g(eigenvalues), axis=-1)
        return energy.energy(tf.reduce_sum(tf.square(residual), axis=-1)) - log_det

    def by_cholesky(loc: "tf.Tensor", vector: "tf.Tensor") -> "tf.Tensor":
        scale = tfp.bijectors.FillScaleTriL()(vector)
        return -tfp.distributions.MultivariateNormalTriL(loc, scale).log_prob(y)

    def step(loss_function: Callable, jit_compile: bool) -> Step:
        @tf.function(jit_compile=jit_compile)
        def loss_and_gradients(nu: "tf.Tensor", vector: "tf.Tensor") -> list["tf.Tensor"]:
            with tf.GradientTape() as tape:
                tape.watch([nu, vector])
                loss = tf.reduce_mean(tf.reduce_sum(loss_function(nu, vector), axis=-1))
            return [loss, *tape.gradient(loss, [nu, vector])]

        # Fetching the values waits until an accelerator has finished as well.
        return lambda: [tensor.numpy() for tensor in loss_and_gradients(nu, vector)]

    versions = {"closed form": closed_form, "eigh": by_eigh, "Cholesky": by_cholesky}
    return {
        name + suffix: step(loss_function, jit_compile)
        for name, loss_function in versions.items()
        for suffix, jit_compile in (("", False), (", XLA", True))
    }


def why_no_torch() -> str | None:
    """Say why PyTorch's version cannot be measured beside TensorFlow's; None if it can."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed (pip install torch==2.13.0)"
    if tf.config.list_physical_devices("GPU") and not torch.cuda.is_available():
        return "TensorFlow runs on the GPU and this PyTorch cannot"
    return None


@contextlib.contextmanager
def torch_process(
    inputs: tuple[np.ndarray, ...], threads: int, compiled: bool
) -> Iterator[tuple[dict[str, list[np.ndarray]], dict[str, Turn]]]:
    """Start a process for PyTorch's steps, and give their results and their turns, by name.

    Raises:
      ChildProcessError: if that ends; it has printed why.
    """
    context = multiprocessing.get_context("spawn")
    connection, its_end = context.Pipe()
    process = context.Process(target=serve_torch, args=(its_end, inputs, threads, compiled))

    def turn(name: str) -> list[float]:
        connection.send(name)
        return connection.recv()

    process.start()
    its_end.close()
    try:
        results = connection.recv()
        yield results, {name: functools.partial(turn, name) for name in results}
    except (EOFError, BrokenPipeError) as error:
        raise ChildProcessError("the process with PyTorch ended") from error
    finally:
        connection.close()
        process.join()


def serve_torch(
    connection: Connection, inputs: tuple[np.ndarray, ...], threads: int, compiled: bool
) -> None:
    """Send the results of PyTorch's steps, and then the times of whichever is asked for."""
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(threads)
    steps = torch_steps(*inputs, compiled)
    connection.send({name: step() for name, step in steps.items()})
    with contextlib.suppress(EOFError):
        while True:
            connection.send(time_repeats(steps[connection.recv()]))


def torch_steps(
    y: np.ndarray, nu: np.ndarray, vector: np.ndarray, compiled: bool = False
) -> dict[str, Step]:
    """Return steps with the same loss as anybody would write it in PyTorch, by name."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    y, nu, vector = (torch.tensor(array, device=device) for array in (y, nu, vector))
    sources = [nu.requires_grad_(), vector.requires_grad_()]

    def loss_function(nu: "torch.Tensor", vector: "torch.Tensor") -> "torch.Tensor":
        first, middle, last = vector.unbind(-1)
        middle = middle * math.sqrt(0.5)
        rows = torch.stack([first, middle], -1), torch.stack([middle, last], -1)
        eigenvalues, v = torch.linalg.eigh(torch.stack(rows, -2))
        below = eigenvalues.clamp(max=1) - 1
        g = torch.where(eigenvalues > 1, eigenvalues, below.exp())
        log_g = torch.where(eigenvalues > 1, eigenvalues.clamp(min=1).log(), below)
        matrix = (v * g.unsqueeze(-2)) @ v.mT
        residual = (matrix @ y.unsqueeze(-1)).squeeze(-1) - nu
        r = torch.linalg.vector_norm(residual, dim=-1)
        energy = torch.where(r > 1, r - 0.5, r.square() / 2)
        return (energy - log_g.sum(-1)).sum(-1).mean()

    def step(loss_function: Callable) -> Step:
        def loss_and_gradients() -> list[np.ndarray]:
            loss = loss_function(nu, vector)
            gradients = torch.autograd.grad(loss, sources)
            return [tensor.detach().cpu().numpy() for tensor in (loss, *gradients)]

        return loss_and_gradients

    steps = {"PyTorch": step(loss_function)}
    if compiled:
        steps["PyTorch, compiled"] = step(torch.compile(loss_function))
    return steps


def training_steps(batch: int) -> dict[str, Step]:
    """Return forward and backward passes, of the whole model and of head and loss alone, by name."""
    model = network.build(schema.Model(backbone="resnet50", image_size=224), LANDMARKS)
    head, energy = model.get_layer("head"), radial.Huber(1.0)
    generator = tf.random.Generator.from_seed(0)
    images = generator.uniform([batch, 224, 224, 3], maxval=255)
    features = generator.normal([batch, model.get_layer("features").output.shape[-1]])
    y = generator.normal([batch, LANDMARKS, 2])

    def loss_of(outputs: dict[str, "tf.Tensor"]) -> "tf.Tensor":
        loss = likelihood.negative_log_likelihood(y, **outputs, energy=energy)
        return tf.reduce_mean(tf.reduce_sum(loss, axis=-1))

    @tf.function
    def whole_step() -> list["tf.Tensor"]:
        with tf.GradientTape() as tape:
            loss = loss_of(model(images, training=True))
        return [loss, *tape.gradient(loss, [v.value for v in model.trainable_variables])]

    @tf.function
    def head_step() -> list["tf.Tensor"]:
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = loss_of(head(features))
        sources = [features, *(v.value for v in head.trainable_variables)]
        return [loss, *tape.gradient(loss, sources)]

    functions = {"whole step": whole_step, "head and loss": head_step}
    return {
        name: lambda function=function: [tf.convert_to_tensor(x).numpy() for x in function()]
        for name, function in functions.items()
    }


def report(times: Times, results: dict[str, list[np.ndarray]], no_torch: str | None) -> bool:
    """Print the table of the loss, the ratios and the bounds; return whether all is as required."""
    print_table(times)
    plain, compiled = "closed form", "closed form, XLA"
    pairs = [
        (plain, "eigh", LEAST_SPEED_UP),
        (compiled, "PyTorch", LEAST_SPEED_UP),
        (plain, "PyTorch", None),
        (compiled, "eigh, XLA", None),
        (compiled, "PyTorch, compiled", None),
        (plain, "Cholesky", None),
        (compiled, "Cholesky, XLA", None),
    ]
    kept = True
    for ours, other, bound in pairs:
        if other in times:
            speed_up = ratio(times, other, ours)
            kept &= bound is None or speed_up >= bound
            required = "" if bound is None else f" (>= {bound} is required)"
            print(f"{ours} over {other}: {speed_up:.1f}{required}")
        elif bound is not None:
            print(f"{ours} over {other}: not measured: {no_torch}")
    print("Cholesky is the common alternative, and another density: a Gaussian")

    differences = {
        name: difference(result, results[plain])
        for name, result in results.items()
        if not name.startswith("Cholesky")
    }
    # NaN counts as the largest here, as it does not with Python's own max.
    name = list(differences)[np.argmax(list(differences.values()))]
    largest = differences[name]
    print(f"largest difference of loss and gradients: {largest:.1e} of the largest ({name})")
    if not largest <= MOST_DIFFERENCE:
        print("VERSIONS DIFFER")
        return False
    return kept


def difference(result: list[np.ndarray], reference: list[np.ndarray]) -> float:
    """Return the largest difference in any array, relative to its largest element; or NaN."""
    return np.max(
        [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(result, reference, strict=True)]
    )


if __name__ == "__main__":
    run_main(main)
