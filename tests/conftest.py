"""What every test gets: quiet TensorFlow, fixed seeds, and the real photographs where they are."""

import contextlib
import functools
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import pytest

import tfhuber  # noqa: F401 (sets what TensorFlow and NumPy read when they are imported)

# isort: split
import numpy as np

# What takes seconds to import is imported in the fixtures that need it. (A lazy module would not do:
# pytest looks at every name here, which would load them all for every test.)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parent.parent

# A shell that starts the tests in the background has them ignore interrupts; processes that they start
# would ignore them too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run; no deadline, because a first call traces a graph.
hypothesis.settings.register_profile("tfhuber", derandomize=True, deadline=None)
hypothesis.settings.load_profile("tfhuber")


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Seeds the global generators before each test, so that its order doesn't matter."""
    random.seed(0)
    np.random.seed(0)
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.random.set_seed(0)


@pytest.fixture(autouse=True)
def root_logger():
    """Undoes what a conversion in this process does to the root logger, so that logs can be tested."""
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture
def full_disk():
    """Return a context in which no file gets larger than so many bytes, which stands in for a full disk."""

    @contextlib.contextmanager
    def limited(size: int):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limited


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real photographs; skips where it is absent."""
    folder = Path(os.environ.get("TFHUBER_SHARED_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real photographs at {folder} (set TFHUBER_SHARED_DATA to their folder)")
    return folder


@pytest.fixture(scope="session")
def shared_records(shared_data, tmp_path_factory):
    """Return a function that converts a layout of them, once: the records, the manifest, the rejects."""
    from conversion import convert

    @functools.cache
    def converted(layout: str, dataset: str):
        output = tmp_path_factory.mktemp("shared") / dataset
        return output, *convert(shared_data / layout, output, dataset=dataset)

    return converted


@pytest.fixture(scope="session")
def job_service(tmp_path_factory):
    """Beam's own local job service, in a process of its own: the options that send a job there."""
    folder = tmp_path_factory.mktemp("job_service")
    command = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main"]
    with (folder / "log").open("wb") as log:
        options = ["--port_file", folder / "port", "--staging_dir", folder]
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
    while not (folder / "port").exists():
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    endpoint = f"--job_endpoint=localhost:{(folder / 'port').read_text()}"
    yield ["--runner", "PortableRunner", endpoint, "--environment_type=LOOPBACK"]
    process.terminate()
    process.wait()


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    """Drawn faces in WFLW's layout: 40 images to train on and 12 to test on."""
    from pipelines.sample_data import write_sample_data

    output = tmp_path_factory.mktemp("faces") / "source"
    write_sample_data("wflw", output, train=40, test=12, seed=0, processes=1)
    return output


@pytest.fixture(scope="session")
def face_records(faces, tmp_path_factory) -> Path:
    """Return the drawn faces, converted, in shards of 16 examples."""
    from pipelines import make_tfrecords

    output = tmp_path_factory.mktemp("records") / "wflw"
    source = ["--dataset", "wflw", "--source", str(faces), "--output", str(output)]
    make_tfrecords.main([*source, "--size", "96", "--shard-examples", "16"])
    return output


@pytest.fixture(scope="session")
def tiny_config(face_records):
    """Return a configuration that trains in seconds."""
    from tfhuber.config import schema

    return schema.parse(
        {
            "data": {"directory": str(face_records)},
            "model": {"backbone": "resnet18", "image_size": 32},
            "train": {
                "epochs": 2,
                "batch_size": 8,
                "learning_rate": [[0, 1e-3]],
                "evaluation_epochs": 1,
            },
        }
    )


@pytest.fixture(scope="session")
def tiny_run(tiny_config, tmp_path_factory) -> Path:
    """Return a finished training run of `tiny_config`."""
    from tfhuber.training.trainer import train

    run = tmp_path_factory.mktemp("runs") / "tiny"
    train(tiny_config, run, quiet=True)
    return run


@pytest.fixture(scope="session")
def exported(tiny_run, tmp_path_factory) -> Path:
    """Return the base path of the model of `tiny_run`, exported as version 1; not to be changed."""
    from tfhuber.saved_model.export import export

    base = tmp_path_factory.mktemp("models") / "wflw"
    assert export(tiny_run, base) == base / "1"
    return base


@pytest.fixture(scope="session")
def picture(faces) -> bytes:
    """Return a JPEG file of one of the drawn faces."""
    return next(iter(sorted((faces / "WFLW_images").rglob("*.jpg")))).read_bytes()


@pytest.fixture(scope="module")
def url():
    """Where a server has a model that answers as an exported one does, without TensorFlow."""
    from fake_server import FakeVersions, local_server, running
    from scripted_server import FullModel

    with running(local_server(FakeVersions(model=FullModel()))) as http:
        yield str(http.base_url)
