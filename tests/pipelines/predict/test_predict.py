"""The prediction job: the numbers are the served ones, nothing is lost, and bytes depend on no worker."""

import shutil

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import toy_filesystem
from hostile_images import encoded, smooth
from prediction import album, answers, arguments, kill_amid, names_in, predict, run, start
from tiny_model import save_tiny_model

from pipelines.predict import answers as answering
from pipelines.predict.__main__ import main
from pipelines.predict.model import ExportedModel
from serving.client.batches import Answer
from serving.client.sources import PictureFile
from serving.client.writers import JsonLines
from tfhuber.saved_model import session

BOX = [5.5, 4.0, 30.0, 41.0]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The base directory of a model with one version, 3."""
    base = tmp_path_factory.mktemp("models")
    save_tiny_model(base / "3")
    return base


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def served(model, folder, names, box=None, signature="serving_default"):
    """What TensorFlow Serving's loader computes for each picture alone."""
    boxes = [np.zeros(4) if box is None else box]
    rows = []
    for name in names:
        found = session.run(model / "3", [(folder / name).read_bytes()], boxes, signature)
        assert found["valid"].all()
        rows.append({key: value[0] for key, value in found.items()})
    return rows


# --- the numbers


@pytest.mark.parametrize(
    ("options", "box", "signature"),
    [
        ([], None, "serving_default"),
        (["--box", "5.5,4,30,41", "--signature", "tta"], BOX, "tta"),
    ],
)
def test_the_numbers_are_the_served_ones(model, tmp_path, options, box, signature):
    source = album(tmp_path / "album", 7)
    found, rejects, manifest = predict(
        model, source, tmp_path / "out", "--shard-examples", "4", "--batch", "3", *options
    )
    names = names_in(source)
    assert names[0].startswith("day/") and names[-1].startswith("night/late/")
    assert ([each["source"] for each in found], rejects) == (names, [])
    assert [each["box"] for each in found] == [box] * 7
    for answer, row in zip(found, served(model, source, names, box, signature), strict=True):
        for name in ("landmarks", "covariance", "precision_factor"):
            np.testing.assert_allclose(answer[name], row[name], rtol=1e-5, atol=1e-4)
    split = manifest["splits"]["pictures"]
    assert (split["pictures"], split["predictions"], split["rejects"]) == (7, 7, 0)
    assert [(shard["name"], shard["predictions"]) for shard in split["shards"]] == [
        ("pictures-00000-of-00002.jsonl", 4),
        ("pictures-00001-of-00002.jsonl", 3),
    ]
    assert split["shards"][0]["sources"]["files"] == 4
    assert manifest["model"]["version"] == "3" and manifest["model"]["signature"] == signature
    assert len(manifest["model"]["sha256"]) == 64
    assert {path.name for path in tmp_path.iterdir()} == {"album", "out"}


def test_the_two_signatures_and_two_models_differ(model, tmp_path):
    """Else the tests of either would show nothing."""
    source = album(tmp_path / "album", 1)
    save_tiny_model(tmp_path / "other", seed=1)
    plain, mirrored, other = (
        predict(which, source, tmp_path / name, *options)[0][0]["landmarks"]
        for which, name, options in (
            (model, "a", []),
            (model, "b", ["--signature", "tta"]),
            (tmp_path / "other", "c", []),
        )
    )
    assert not np.allclose(plain, mirrored, atol=0.1) and not np.allclose(plain, other, atol=0.1)


def test_a_line_is_the_clients(model, tmp_path):
    source = album(tmp_path / "album", 1)
    (name,) = names_in(source)
    (answer,), _, _ = predict(model, source, tmp_path / "out", "--box", "5.5,4,30,41")
    arrays = {
        key: np.array(answer[key], np.float32)
        for key in ("landmarks", "covariance", "precision_factor")
    }
    optional = {"precision_factor": arrays.pop("precision_factor")}
    with JsonLines(tmp_path / "client.jsonl") as writer:
        writer.write(Answer(PictureFile(name, box=np.array(BOX)), **arrays, optional=optional))
    shard = tmp_path / "out/pictures-00000-of-00001.jsonl"
    assert shard.read_bytes() == (tmp_path / "client.jsonl").read_bytes()


def test_parquet_holds_what_json_holds(model, tmp_path):
    source = album(tmp_path / "album", 6)
    names = names_in(source)
    (tmp_path / "boxes.csv").write_text(f"{names[0]},5.5,4,30,41\n")
    (tmp_path / "list.txt").write_text("\n".join(names))
    options = ["--images", str(source), "--shard-examples", "4"]
    expected, _, _ = predict(model, tmp_path / "list.txt", tmp_path / "json", *options)
    main(arguments(model, tmp_path / "list.txt", tmp_path / "out", *options, "--format", "parquet"))
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert [file.name for file in files] == [f"pictures-0000{i}-of-00002.parquet" for i in (0, 1)]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    for row, answer in zip(rows, expected, strict=True):
        assert list(row) == list(answer) and row["source"] == answer["source"]
        for name in ("landmarks", "covariance", "precision_factor"):
            # A line has the digits that make it the same float32 again.
            np.testing.assert_array_equal(np.float32(row[name]), np.float32(answer[name]))


def test_a_shard_of_rejects_alone_has_the_columns_too(model, tmp_path):
    (tmp_path / "album").mkdir()
    (tmp_path / "album/a.jpg").write_bytes(b"no picture")
    (tmp_path / "album/b.jpg").write_bytes(encoded(smooth(), "JPEG"))
    options = ["--format", "parquet", "--shard-examples", "1", "--box", "5.5,4,30,41"]
    main(arguments(model, tmp_path / "album", tmp_path / "out", *options))
    empty, full = (pq.read_table(file) for file in sorted((tmp_path / "out").glob("*.parquet")))
    assert (len(empty), len(full)) == (0, 1) and empty.schema == full.schema
    assert full.to_pylist()[0]["box"] == BOX


def test_batches_follow_from_the_pictures_alone():
    """A batch ends with its last picture, or with the one that makes it too large; rejects don't count."""

    class Model:
        arrays, landmarks = ("landmarks",), 1

        def predict(self, files, boxes):
            sizes.append([len(file) for file in files])
            assert boxes.shape == (len(files), 4)
            numbers = np.array([[[len(file), 0.0]] for file in files], np.float32)
            return {"landmarks": numbers, "valid": np.ones(len(files), bool)}

    sizes = []
    large = answering._MOST_BYTES
    reject = answering.Reject("r", None, "reason", "why")
    items = [answering.Picture(str(n), None, bytes(n)) for n in (1, 2, 3, large, 5, 6)]
    found = list(answering.answers([reject, *items[:3], reject, *items[3:]], Model(), 2))
    assert sizes == [[1, 2], [3, large], [5, 6]]
    assert [each.source for each in found] == ["r", "1", "2", "3", "r", str(large), "5", "6"]
    assert [each.arrays["landmarks"][0, 0] for each in found if each.source != "r"] == [
        *(1, 2, 3, large, 5, 6)
    ]


# --- the same bytes everywhere, and after a kill


def test_any_number_of_workers_writes_the_same_bytes(model, tmp_path):
    source = album(tmp_path / "album", 30)
    (source / "day/bad.jpg").write_bytes(b"no picture")
    options = ["--shard-examples", "6", "--batch", "4"]
    for output, more in (("one", []), ("two", ["--processes", "2"])):
        code, out, err = run(*arguments(model, source, tmp_path / output, *options, *more))
        assert code == 0, err
        assert "is ready" in out and "30" in out.split() and "Traceback" not in err
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(answers(tmp_path / "one")) == 30


@pytest.mark.parametrize("way", [[], pytest.param(["--processes", "2"], marks=pytest.mark.slow)])
def test_a_run_that_was_killed_is_finished_by_the_same_command(model, tmp_path, way):
    source, output = album(tmp_path / "album", 400), tmp_path / "out"
    names = names_in(source)
    command = arguments(model, source, output, "--shard-examples", "5", "--batch", "1", *way)
    process = start(*command)
    work = tmp_path / ".out.partial"
    kill_amid(process, work, 4)
    assert not output.exists()
    done = {path.name for path in (work / "books").iterdir()}
    done &= {path.name for path in (work / "rejects").iterdir()}
    assert 3 <= len(done) < 80
    before = {name: (work / "data" / name).stat().st_mtime_ns for name in done}
    # One picture of a finished shard is another meanwhile, which must not go unnoticed.
    first = min(done)
    changed = orjson.loads((work / "data" / first).read_bytes().splitlines()[3])["source"]
    (source / changed).write_bytes(encoded(smooth(seed=99), "JPEG"))
    code, _, err = run(*command)
    assert code == 0, err
    after = {name: (output / name).stat().st_mtime_ns for name in done}
    assert {name for name in done if after[name] != before[name]} == {first}
    shutil.rmtree(work, ignore_errors=True)
    main(arguments(model, source, tmp_path / "calm", "--shard-examples", "5", "--batch", "1"))
    assert contents(output).keys() == contents(tmp_path / "calm").keys()
    assert [each["source"] for each in answers(output)] == names
    for one, other in zip(answers(output), answers(tmp_path / "calm"), strict=True):
        np.testing.assert_allclose(one["landmarks"], other["landmarks"], atol=1e-4)


def test_another_model_or_other_settings_make_every_shard_anew(model, tmp_path, monkeypatch):
    source, output = album(tmp_path / "album", 4), tmp_path / "out"
    command = arguments(model, source, output, "--shard-examples", "2")

    def fail(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr("pipelines.predict.__main__.gather_rejects", fail)
        main(command)
    assert len(list((tmp_path / ".out.partial/books").iterdir())) == 2
    other = save_tiny_model(tmp_path / "other", seed=1)
    found, _, _ = predict(other, source, output, "--shard-examples", "2")
    expected, _, _ = predict(other, source, tmp_path / "calm", "--shard-examples", "2")
    assert found == expected


def test_everything_may_lie_in_an_object_store(model, tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    monkeypatch.setenv(toy_filesystem.DIRECTORY, str(tmp_path / "store"))
    source = album(tmp_path / "album", 5)
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes/b.csv").write_text("".join(f"{n},5,4,30,41\n" for n in names_in(source)[1:]))
    predict(model, source, tmp_path / "here", "--boxes", str(tmp_path / "boxes/b.csv"))
    toy_filesystem.upload(model, "toy://bucket/model")
    toy_filesystem.upload(source, "toy://bucket/album")
    toy_filesystem.upload(tmp_path / "boxes", "toy://bucket/boxes")
    where = ["toy://bucket/model", "toy://bucket/album", "toy://bucket/out"]
    main(arguments(*where, "--boxes", "toy://bucket/boxes/b.csv"))
    toy_filesystem.download("toy://bucket/out", tmp_path / "there")
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_a_process_loads_the_model_once_and_no_other_than_the_launcher_found(
    model, tmp_path, monkeypatch
):
    loaded = []

    def load(self):
        loaded.append(self)
        return undisturbed(self)

    undisturbed = ExportedModel.load
    monkeypatch.setattr(ExportedModel, "load", load)
    source = album(tmp_path / "album", 6)
    predict(model, source, tmp_path / "out", "--shard-examples", "1")
    assert len(loaded) == 1
    found = ExportedModel.find(str(save_tiny_model(tmp_path / "other")), "serving_default")
    (tmp_path / "other/assets.extra/more").write_text("changed meanwhile")
    with pytest.raises(OSError, match="is not the model that the launcher found there"):
        found.load()


@pytest.mark.slow
def test_a_job_service_writes_the_same_bytes(model, tmp_path, job_service):
    source = album(tmp_path / "album", 12)
    for output, way in (("here", []), ("there", job_service)):
        command = arguments(model, source, tmp_path / output, "--shard-examples", "5", *way)
        code, _, err = run(*command)
        assert code == 0, err
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
