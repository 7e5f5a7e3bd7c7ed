"""The probes that `tfhuber.doctor` makes in a process of its own, as a broken driver may take it down.

`python -m tfhuber.doctor.probes [SKIPPED ...]` imports TensorFlow, lists its devices, and then makes each
probe on each of them. It prints a JSON line before each, so that the doctor knows what it died of, and
one after.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tfhuber.console.cpus import available_cpus
from tfhuber.console.files import reason
from tfhuber.console.lazy import lazy_module

if TYPE_CHECKING:
    import apache_beam
    import google_crc32c
    import keras
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.client import device_lib

    from tfhuber.distributions import likelihood, radial
    from tfhuber.linalg import spd
else:  # each is imported by the probe that says what is wrong with it
    apache_beam = lazy_module("apache_beam")
    google_crc32c = lazy_module("google_crc32c")
    keras = lazy_module("keras")
    np = lazy_module("numpy")
    tf = lazy_module("tensorflow")
    device_lib = lazy_module("tensorflow.python.client.device_lib")
    likelihood = lazy_module("tfhuber.distributions.likelihood")
    radial = lazy_module("tfhuber.distributions.radial")
    spd = lazy_module("tfhuber.linalg.spd")

__all__ = ["IMPORT", "OK", "PROBLEM", "main"]

OK, PROBLEM = "ok", "problem"
IMPORT = "TensorFlow"

# Seconds that one timing may take, once the first two calls are done.
_TIMED = 0.25


def main() -> None:
    """Make the probes whose names aren't among the arguments."""
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What libraries print is no result.

    def tell(**values: object) -> None:
        print(json.dumps(values), file=results)

    def attempt(name: str, probe: Callable[[], str]) -> None:
        if name in sys.argv[1:]:
            return
        tell(starts=name)
        try:
            tell(check=name, state=OK, detail=probe())
        except Exception as error:  # whatever a broken installation raises
            tell(check=name, state=PROBLEM, detail=f"{type(error).__name__}: {reason(error)}")

    attempt("Apache Beam", _beam)
    attempt("checksums", _checksums)
    tell(starts=IMPORT)
    devices = _start()
    tell(check=IMPORT, state=OK, detail=_build())
    for device, detail in devices.items():
        attempt(device, functools.partial(str, detail))
    for probe in (_convolution, _loss, _xla, _float16, _bfloat16, _determinism):
        for device in devices:
            name = probe.__name__.lstrip("_").replace("xla", "XLA")
            attempt(f"{name} on {device}", functools.partial(probe, device))
    tell(finished=True)


def _beam() -> str:
    return f"{apache_beam.__version__} can be imported"


def _checksums() -> str:
    if google_crc32c.implementation != "c":
        raise ImportError(
            "google-crc32c has no C library here, so Beam checksums TFRecords in Python, many times "
            "slower; reinstall it: pip install --force-reinstall google-crc32c -c constraints.txt"
        )
    return "google-crc32c computes them in C"


def _start() -> dict[str, str]:
    """Start TensorFlow, and return its devices and what is known of each."""
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            f"Keras computes with {keras.config.backend()}; set KERAS_BACKEND=tensorflow, or mend "
            "~/.keras/keras.json"
        )
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    devices = {"CPU:0": f"{available_cpus()} cores"}
    memory = {
        d.name.rpartition("device:")[2]: d.memory_limit for d in device_lib.list_local_devices()
    }
    for i, gpu in enumerate(gpus):
        facts = tf.config.experimental.get_device_details(gpu)
        capability = ".".join(map(str, facts.get("compute_capability", ["unknown"])))
        devices[f"GPU:{i}"] = (
            f"{facts.get('device_name', 'GPU')}, compute capability {capability}, "
            f"{memory.get(f'GPU:{i}', 0) / 2**30:.1f} GiB for TensorFlow"
        )
    return devices


def _build() -> str:
    build = tf.sysconfig.get_build_info()
    if not build.get("is_cuda_build"):
        return f"{tf.__version__}, built without CUDA: it can use no NVIDIA GPU"
    return (
        f"{tf.__version__}, built for CUDA {build['cuda_version']}, cuDNN {build['cudnn_version']}"
    )


def _convolution(device: str) -> str:
    """Compute a convolution forward and backward against float64 on the CPU."""
    # float32 convolutions keep 10 bits of the factors where TensorFloat-32 is on.
    error = _error(_convolution_gradients, device, *_images_and_kernel(), within=5e-3)
    return f"forward and backward, within {error:.0e} of float64"


def _loss(device: str) -> str:
    """Compute the SPD map and the loss, forward and backward, against float64 on the CPU."""
    error = _error(_loss_gradients, device, *_targets_and_outputs(), within=1e-4)
    return f"SPD map and loss, forward and backward, within {error:.0e} of float64"


def _xla(device: str) -> str:
    """Compute the loss again, compiled."""
    compiled = tf.function(_loss_gradients, jit_compile=True)
    error = _error(compiled, device, *_targets_and_outputs(), within=1e-4, plain=_loss_gradients)
    return f"compiles the loss, within {error:.0e} of float64"


def _float16(device: str) -> str:
    return _half_precision("float16", device)


def _bfloat16(device: str) -> str:
    return _half_precision("bfloat16", device)


def _determinism(device: str) -> str:
    """Check that the same step gives the same bits; determinism stays on for all that comes after it."""
    tf.config.experimental.enable_op_determinism()
    images, kernel = (tf.cast(x, tf.float32) for x in _images_and_kernel(count=8))
    with tf.device(device):
        runs = [_numpy(tf.function(_convolution_gradients)(images, kernel)) for _ in range(3)]
    if not all(np.array_equal(a, b) for run in runs for a, b in zip(run, runs[0], strict=True)):
        raise ArithmeticError("three runs of one convolution's gradients differ")
    return "three runs of one step give the same bits"


def _half_precision(dtype: str, device: str) -> str:
    """Compute matrix product and convolution in a half precision: their error and their speed."""
    n, count, channels = (4096, 32, 256) if device.startswith("GPU") else (384, 2, 32)
    matrix = _normal([n, n], seed=6) / n**0.5
    images, kernel = _images_and_kernel(count, 56, channels)
    work = {
        "matrix product": (_products, (matrix,)),
        "convolution": (_convolution_gradients, (images, kernel)),
    }
    rates = []
    for name, (function, inputs) in work.items():
        seconds = {}
        for precision in ("float32", dtype):
            with tf.device(device):
                cast = [tf.identity(tf.cast(x, precision)) for x in inputs]
            seconds[precision] = _seconds(tf.function(function), device, cast)
        rates.append(f"{name} {seconds['float32'] / seconds[dtype]:.2g}")
    small = _images_and_kernel()
    _error(_convolution_gradients, device, *small, within=0.05, dtype=dtype)
    return f"works; speed relative to float32: {', '.join(rates)}"


def _images_and_kernel(
    count: int = 2, size: int = 16, channels: int = 8
) -> tuple["tf.Tensor", "tf.Tensor"]:
    images = _normal([count, size, size, channels], seed=1)
    return images, _normal([3, 3, channels, channels], seed=2) / (3 * channels**0.5)


def _convolution_gradients(images: "tf.Tensor", kernel: "tf.Tensor") -> tuple["tf.Tensor", ...]:
    """Return a layer's maps, and the gradients of half their squares."""
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        maps = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))
    return maps, *tape.gradient(maps, [images, kernel], output_gradients=maps)


def _products(matrix: "tf.Tensor") -> "tf.Tensor":
    """Multiply so often in a row that starting the products takes no time beside."""
    result = matrix
    for _ in range(8):
        result = matrix @ result
    return result


def _targets_and_outputs() -> tuple["tf.Tensor", "tf.Tensor", "tf.Tensor"]:
    """Return targets y [8, 98, 2], and nu and a vector such as a network's head puts out for them."""
    shape = [8, 98, 2]
    return _normal(shape, seed=3), _normal(shape, seed=4), _normal([8, 98, 3], seed=5)


def _normal(shape: list[int], seed: int) -> "tf.Tensor":
    """Return random numbers in float64 on the CPU."""
    with tf.device("CPU:0"):
        return tf.random.stateless_normal(shape, [seed, 0], dtype=tf.float64)


def _loss_gradients(
    y: "tf.Tensor", nu: "tf.Tensor", vector: "tf.Tensor"
) -> tuple["tf.Tensor", ...]:
    with tf.GradientTape() as tape:
        tape.watch([nu, vector])
        loss = likelihood.negative_log_likelihood(y, nu, *spd.spd_matrix(vector), radial.Huber(1.0))
    return loss, *tape.gradient(loss, [nu, vector])


def _error(
    function: Callable[..., Sequence["tf.Tensor"]],
    device: str,
    *inputs: "tf.Tensor",
    within: float,
    dtype: str = "float32",
    plain: Callable[..., Sequence["tf.Tensor"]] | None = None,
) -> float:
    """Return how far results on a device are from those in float64 on the CPU, relative to the largest.

    The latter are those of `plain`, if given, which is the function before it was compiled.
    """
    with tf.device("CPU:0"):
        expected = _numpy((plain or function)(*inputs))
    with tf.device(device):
        results = function(*(tf.identity(tf.cast(x, dtype)) for x in inputs))
    if wrong := [r.device for r in results if not r.device.endswith(device)]:
        raise RuntimeError(f"it ran on {wrong[0]}")
    errors = [
        np.max(np.abs(a.astype(np.float64) - b)) / np.max(np.abs(b))
        for a, b in zip(_numpy(results), expected, strict=True)
    ]
    error = float(np.max(errors))
    if not error <= within:
        raise ArithmeticError(f"its results are {error:.1e} off, relative to the largest")
    return error


def _seconds(
    function: Callable[..., Sequence["tf.Tensor"]], device: str, inputs: Sequence["tf.Tensor"]
) -> float:
    """Return the shortest time of a call, after one that compiles it."""

    def wait(results: object) -> None:
        for result in tf.nest.flatten(results):
            tf.reshape(result, [-1])[0].numpy()

    with tf.device(device):
        wait(function(*inputs))
        times: list[float] = []
        start = time.perf_counter()
        while not times or time.perf_counter() - start < _TIMED:
            begin = time.perf_counter()
            wait(function(*inputs))
            times.append(time.perf_counter() - begin)
    return min(times)


def _numpy(tensors: Sequence["tf.Tensor"]) -> list["np.ndarray"]:
    return [tensor.numpy() for tensor in tensors]


if __name__ == "__main__":
    main()
