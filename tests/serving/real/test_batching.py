"""Batching on TensorFlow Serving itself: who can hurt whom, as the table in docs/serving.md says."""

import concurrent.futures
import re

import httpx
import numpy as np
import pytest
from fake_server import b64
from real_server import SERVING, tf_serving

from tfhuber.saved_model import session

BOX = [49.0, 60.0, 191.0, 217.0]
MERGED_WITH_OTHERS = "from different tasks have different shapes"
THREADS = 6


@pytest.fixture(scope="module")
def batching(exported, tmp_path_factory):
    """A server that batches as configured, but waits long for a batch to fill: whoever asks now is in."""
    folder = tmp_path_factory.mktemp("batching")
    text = (SERVING / "batching.config").read_text()
    text, changed = re.subn(r"(batch_timeout_micros { value: )\d+", r"\g<1>500000", text)
    assert changed == 1
    (folder / "batching.config").write_text(text)
    flags = [
        "--model_name=wflw",
        f"--model_base_path={exported}",
        "--enable_model_warmup=false",
        "--enable_batching=true",
        f"--batching_parameters_file={folder / 'batching.config'}",
        f"--rest_api_num_threads={THREADS}",
        "--rest_api_timeout_in_ms=2000",
    ]
    with tf_serving(folder, *flags) as server:
        yield server


@pytest.fixture(scope="module")
def pictures(faces):
    return [path.read_bytes() for path in sorted((faces / "WFLW_images").rglob("*.jpg"))[:3]]


def together(server, bodies) -> list[tuple[int, dict]]:
    """Answers to requests that are sent at the same time."""
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(server.ask, bodies))


def row(picture: bytes, box=BOX) -> dict:
    return {"instances": [{"image_bytes": b64(picture), "box": box}]}


def crop(side: int) -> dict:
    image = np.zeros((side, side, 3), int).tolist()
    return {"signature_name": "tensor", "instances": [{"image": image}]}


def test_a_batch_of_all_sizes_and_of_bad_rows_hurts_nobody(batching, exported, pictures):
    boxes = [BOX, [0, 0, 0, 0], [-30, 40, 60, 400]]
    bodies = [*map(row, pictures, boxes), row(b"junk"), row(pictures[0], [9, 9, 5, 5])]
    answers = together(batching, bodies)
    assert [status for status, _ in answers] == [200] * len(bodies)
    found = [answer["predictions"][0] for _, answer in answers]
    expected = session.run(exported / "1", pictures, boxes)
    for name, value in expected.items():
        np.testing.assert_allclose([row[name] for row in found[:3]], value, rtol=1e-4, atol=1e-3)
    assert [row["valid"] for row in found] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("kind", ["box", "crop"])
def test_another_shape_fails_the_batch_that_it_is_in(batching, pictures, kind):
    """Upstream's: the guide names it, and says to leave batching off where strangers ask."""
    good, bad = (
        (row(pictures[0]), row(pictures[0], BOX[:3])) if kind == "box" else map(crop, (32, 60))
    )
    answers = together(batching, [good, good, bad, good])
    assert {status for status, _ in answers} == {400}
    assert all(MERGED_WITH_OTHERS in answer["error"] for _, answer in answers)
    # The next batch is whole again.
    assert [status for status, _ in together(batching, [good] * 3)] == [200] * 3


def test_no_more_rows_than_a_batch_holds(batching):
    for count, status in ((32, 200), (33, 400)):
        body = {"signature_name": "metadata", "instances": [""] * count}
        assert batching.ask(body)[0] == status


def test_requests_without_rows_stop_the_server(batching):
    """Upstream's, and past its own timeout of two seconds; the last test here, for that reason."""
    nothing = {"inputs": {"image_bytes": [], "box": []}}
    outcomes = []

    def ask(_):
        try:
            return batching.ask(nothing, timeout=4)[0]
        except httpx.ReadTimeout:
            return "never"

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        outcomes += pool.map(ask, range(THREADS))
    assert outcomes == ["never"] * THREADS
    with pytest.raises(httpx.ReadTimeout):  # readiness too
        batching.http.get("/v1/models/wflw/metadata", timeout=2)
    assert batching.process.poll() is None
