"""A checkpoint that cannot be written or read is named, and the last good one stays."""

import re
import shutil

import keras
import numpy as np
import pytest

from tfhuber.runs.checkpoints import Checkpoints, tidy


def _state(value: float, width: int = 4):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(width)])
    model.set_weights([np.full(w.shape, value) for w in model.weights])
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    return model, optimizer


def _restored(run, width: int = 4) -> float:
    model, optimizer = _state(-1, width)
    Checkpoints(run, model, optimizer).restore()
    return float(model.weights[0].numpy().mean())


@pytest.fixture
def run(tmp_path):
    """Checkpoints of steps 9 and 10, whose weights are 9 and 10."""
    for value in (9, 10):
        Checkpoints(tmp_path, *_state(value)).save(value)
    return tmp_path


def test_the_newest_is_restored_and_none_is_fine(run, tmp_path):
    assert _restored(run) == Checkpoints(run, *_state(0)).restore() == 10
    assert _restored(tmp_path / "elsewhere") == -1
    assert Checkpoints(tmp_path / "elsewhere", *_state(0)).restore() is None


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("change", ["cut", "flip", "gone"])
def test_of_a_damaged_one_is_warned_and_the_one_before_is_found(run, suffix, change, caplog):
    path = run / "latest" / f"ckpt-10.{suffix}"
    data = bytearray(path.read_bytes())
    if change == "flip":
        data[len(data) // 2] ^= 255
    path.write_bytes(data[:20] if change == "cut" else data)
    if change == "gone":
        path.unlink()
    assert _restored(run) == 9
    if path.exists() or suffix != "index":
        (record,) = caplog.records
        assert re.search(r"ckpt-10 is damaged .*; going on from .*ckpt-9", record.getMessage())


def test_one_of_another_model_is_refused(run):
    with pytest.raises(ValueError, match=r"ckpt-10 is damaged or of another model .* every one"):
        _restored(run, width=5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(range(256)),
        b'model_checkpoint_path: "ckpt-77"\nall_model_checkpoint_paths: "ckpt-77"\n',
    ],
    ids=["empty", "no text", "of others"],
)
def test_a_damaged_list_of_checkpoints_is_made_anew(run, content):
    (run / "latest" / "checkpoint").write_bytes(content)
    tidy(run)
    assert _restored(run) == 10
    Checkpoints(run, *_state(11)).save(11)
    assert sorted(p.stem for p in run.glob("latest/*.index")) == ["ckpt-10", "ckpt-11"]


def test_what_a_killed_process_left_is_cleared_away(run):
    """A half-written checkpoint, one whose index was deleted already, and one that is not listed yet."""
    latest = run / "latest"
    (latest / "ckpt-12_temp").mkdir()
    (latest / "ckpt-12_temp" / "part-00000-of-00001.data-00000-of-00001").write_text("half")
    (latest / "ckpt-8.data-00000-of-00001").write_text("half")
    Checkpoints(run, *_state(11)).save(11)
    for suffix in ("index", "data-00000-of-00001"):
        (latest / f"ckpt-11.{suffix}").rename(latest / f"ckpt-12.{suffix}")
    tidy(run)
    assert _restored(run) == 11
    Checkpoints(run, *_state(13)).save(13)
    assert {p.name.partition(".")[0] for p in latest.iterdir()} == {
        "checkpoint",
        "ckpt-12",
        "ckpt-13",
    }


def test_a_run_that_was_deleted_meanwhile_is_not_half_made_again(run):
    checkpoints = Checkpoints(run, *_state(11))
    shutil.rmtree(run / "latest")
    with pytest.raises(OSError, match="latest is gone: somebody deleted the run"):
        checkpoints.save(11)


@pytest.mark.parametrize("name", ["latest", "best"])
def test_a_directory_that_cannot_be_made_is_named(tmp_path, name):
    (tmp_path / name).write_text("a file")
    with pytest.raises(OSError, match=name):
        Checkpoints(tmp_path, *_state(0))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"score": "x"}', '{"score": 1, "step": Infinity}']
)
def test_a_damaged_record_of_the_best_is_found_at_the_start(run, content):
    (run / "best.json").write_text(content)
    with pytest.raises(ValueError, match=r"best.json is damaged; delete it"):
        Checkpoints(run, *_state(0))


def test_the_best_stays_until_a_better_one_comes(tmp_path):
    """A score that is no number is the worst of all, but one checkpoint is better than none."""
    scores = [np.nan, -5.0, -7.0, -4.0, np.nan, -4.0]
    for value, score in enumerate(scores, 1):
        checkpoints = Checkpoints(tmp_path, *_state(value))
        checkpoints.keep_best(value, score)
        best = [1, 2, 2, 4, 4, 4][value - 1]
        assert [p.name for p in (tmp_path / "best").glob("*.index")] == [f"ckpt-{best}.index"]
        assert checkpoints.best_step == best


def test_what_cannot_be_written_leaves_the_last_good_one(run, full_disk):
    checkpoints = Checkpoints(run, *_state(11))
    fault = r"cannot write the checkpoint of step 11 .*goes on"
    with full_disk(64), pytest.raises(OSError, match=fault):
        checkpoints.save(11)
    assert any((run / "latest").glob("*_temp"))
    tidy(run)
    assert _restored(run) == 10
    assert not any((run / "latest").glob("*_temp"))
