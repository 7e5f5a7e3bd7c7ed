"""Answers in the files of pose tools, read back by the libraries that own the formats."""

import csv
import functools
import json

import numpy as np
import pytest
import sleap_io
from scipy import integrate, stats
from scipy.io import netcdf_file
from scripted_server import noise, run_client

from serving.client.batches import Answer
from serving.client.pose_files import CocoResults, DlcCsv, DlcH5, Movement, SleapFile, Trust
from serving.client.sources import Picture
from tfhuber.saved_model.metadata import ModelMetadata

NAMES = ["nose", "left ear", "öhr,right"]
GAUSS = ModelMetadata(NAMES, [(0, 1), (0, 2)], "gauss", 1.0, 1.0, "longest")
TRUST = Trust(GAUSS, distance=3.0)


def answers(video=True):
    """Three answers, the second of which is an error."""
    generator = np.random.default_rng(0)
    found = []
    for i in range(3):
        number, seconds = (i, i / 50) if video else (None, None)
        picture = Picture("clip.mp4" if video else f"b/{i}.png", number, seconds, size=(200, 100))
        root = generator.normal(size=(3, 2, 2))
        covariance = root @ root.swapaxes(1, 2) + np.eye(2)
        found.append(Answer(picture, None, None, generator.uniform(0, 99, (3, 2)), covariance))
    found[1].error = "it cannot be read"
    return found


def write(writer, found):
    with writer:
        for answer in found:
            writer.write(answer)


def expected(found):
    """[3, 3, 3] x, y and likelihood, by SciPy's Gaussian; NaN where there is no answer."""
    rows = np.full((3, 3, 3), np.nan)
    for i in (0, 2):
        rows[i, :, :2] = found[i].landmarks
        rows[i, :, 2] = [within(3.0, tuple(each.ravel())) for each in found[i].covariance]
    return rows


@functools.cache
def within(distance, covariance):
    """The probability of the disc under a Gaussian, by integrating its density."""
    covariance = np.reshape(covariance, (2, 2))
    values, _ = integrate.dblquad(
        lambda r, a: (
            r * stats.multivariate_normal.pdf([r * np.cos(a), r * np.sin(a)], cov=covariance)
        ),
        0,
        2 * np.pi,
        0,
        distance,
        epsabs=1e-6,
    )
    return values


def test_deeplabcuts_csv_has_three_rows_of_names_and_a_row_a_frame(tmp_path):
    found = answers()
    write(DlcCsv(tmp_path / "clip.csv", TRUST, "net"), found)
    with open(tmp_path / "clip.csv", newline="") as file:
        scorer, parts, coords, *rows = csv.reader(file)
    assert scorer == ["scorer", *["net"] * 9]
    assert parts == ["bodyparts", *(name for name in NAMES for _ in range(3))]
    assert coords == ["coords", *["x", "y", "likelihood"] * 3]
    assert [row[0] for row in rows] == ["0", "1", "2"] and rows[1][1:] == [""] * 9
    values = np.array([[float(cell or "nan") for cell in row[1:]] for row in rows]).reshape(3, 3, 3)
    np.testing.assert_allclose(values, expected(found), rtol=1e-5)


def test_deeplabcuts_csv_is_read_by_pandas_as_their_programs_do(tmp_path):
    import pandas

    found = answers()
    write(DlcCsv(tmp_path / "clip.csv", TRUST, "net"), found)
    frame = pandas.read_csv(tmp_path / "clip.csv", header=[0, 1, 2], index_col=0)
    assert frame.columns.names == ["scorer", "bodyparts", "coords"]
    assert list(frame.index) == [0, 1, 2] and list(frame["net"].columns.levels[0]) == sorted(NAMES)
    np.testing.assert_allclose(frame["net", "left ear", "y"], expected(found)[:, 1, 1], rtol=1e-8)


def test_covariances_stand_beside_the_csv(tmp_path):
    found = answers()
    write(DlcCsv(tmp_path / "clip.csv", TRUST, "net"), found)
    with open(tmp_path / "clip_cov.csv", newline="") as file:
        _, _, coords, *rows = csv.reader(file)
    assert coords == ["coords", *["x_var", "y_var", "xy_cov"] * 3]
    values = np.array(rows[2][1:], float).reshape(3, 3)
    matrices = found[2].covariance
    np.testing.assert_allclose(values[:, 0], matrices[:, 0, 0], rtol=1e-8)
    np.testing.assert_allclose(values[:, 1], matrices[:, 1, 1], rtol=1e-8)
    np.testing.assert_allclose(values[:, 2], matrices[:, 0, 1], rtol=1e-8)


def test_pictures_are_rows_by_their_names(tmp_path):
    write(DlcCsv(tmp_path / "a.csv", TRUST, "net"), answers(video=False))
    with open(tmp_path / "a.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)][3:] == ["b/0.png", "b/1.png", "b/2.png"]


def test_inverse_variances_are_what_a_smoother_divides_by(tmp_path):
    found = answers()
    write(DlcCsv(tmp_path / "a.csv", Trust(GAUSS, "inverse-variance"), "net"), found)
    with open(tmp_path / "a.csv", newline="") as file:
        row = list(csv.reader(file))[3]
    variances = 1 / np.array(row[3::3], float)
    traces = [np.trace(matrix) / 2 for matrix in found[0].covariance]
    np.testing.assert_allclose(variances, traces, rtol=1e-8)


def test_deeplabcuts_h5_is_read_by_pandas(tmp_path):
    pytest.importorskip("tables", reason="PyTables is not installed")
    import pandas

    found = answers()
    write(DlcH5(tmp_path / "clip.h5", TRUST, "net"), found)
    frame = pandas.read_hdf(tmp_path / "clip.h5", "df_with_missing")
    assert frame.columns.names == ["scorer", "bodyparts", "coords"]
    assert list(frame.index) == [0, 1, 2]
    np.testing.assert_allclose(frame.to_numpy().reshape(3, 3, 3), expected(found), rtol=1e-5)


@pytest.mark.parametrize("video", [True, False])
def test_sleap_reads_its_predictions(tmp_path, video):
    found = answers(video)
    write(SleapFile(tmp_path / "clip.slp", TRUST, "net"), found)
    labels = sleap_io.load_slp(str(tmp_path / "clip.slp"), open_videos=False)
    assert labels.skeleton.node_names == NAMES
    assert labels.skeleton.edge_inds == [(0, 1), (0, 2)]
    assert [frame.frame_idx for frame in labels.labeled_frames] == [0, 2]
    assert labels.video.filename == ("clip.mp4" if video else ["b/0.png", "b/1.png", "b/2.png"])
    for frame, i in zip(labels.labeled_frames, (0, 2), strict=True):
        (instance,) = frame.predicted_instances
        assert not frame.user_instances
        np.testing.assert_allclose(instance.numpy(), found[i].landmarks)
        likelihood = expected(found)[i, :, 2]
        np.testing.assert_allclose(instance.points["score"], likelihood, rtol=1e-5)
        assert instance.score == pytest.approx(likelihood.mean(), rel=1e-5)


def test_movements_axes_and_numbers(tmp_path):
    found = answers()
    write(Movement(tmp_path / "clip.nc", TRUST, "net"), found)
    with netcdf_file(str(tmp_path / "clip.nc"), mmap=False) as file:
        read = {name: np.array(variable[:]) for name, variable in file.variables.items()}
        axes = {name: variable.dimensions for name, variable in file.variables.items()}
        assert (file.ds_type, file.time_unit) == (b"poses", b"seconds")
        assert file.fps == pytest.approx(50, rel=1e-12)
    assert axes["position"] == ("time", "space", "keypoints", "individuals")
    assert axes["confidence"] == ("time", "keypoints", "individuals")
    assert axes["covariance"] == ("time", "space", "other_space", "keypoints", "individuals")
    values = expected(found)
    np.testing.assert_allclose(read["position"][..., 0].swapaxes(1, 2), values[..., :2])
    np.testing.assert_allclose(read["confidence"][..., 0], values[..., 2], rtol=1e-5)
    np.testing.assert_allclose(
        np.moveaxis(read["covariance"][2, ..., 0], 2, 0), found[2].covariance, rtol=1e-12
    )
    np.testing.assert_allclose(read["time"], [0, 0.02, 0.04])
    names = [b"".join(row).rstrip(b"\0").decode() for row in read["keypoints"]]
    assert names == NAMES


def test_movement_loads_its_file(tmp_path):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    validators = pytest.importorskip("movement.validators.datasets", reason="no movement")
    found = answers()
    write(Movement(tmp_path / "clip.nc", TRUST, "net"), found)
    with xarray.open_dataset(tmp_path / "clip.nc") as loaded:
        validators.ValidPosesInputs.validate(loaded)
        assert loaded.keypoints.values.tolist() == NAMES
        place = loaded.position.sel(keypoints="left ear", space="y", individuals="id_0")
        np.testing.assert_allclose(place, expected(found)[:, 1, 1])


def test_coco_scores_its_results(tmp_path):
    """Against the answers themselves as annotations, where every score is 1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = answers(video=False)
    rows = expected(found)
    annotations = [
        {
            "id": i + 1,
            "image_id": 40 + i,
            "category_id": 1,
            "iscrowd": 0,
            "area": 5000,
            "bbox": [0, 0, 100, 100],
            "num_keypoints": 3,
            "keypoints": np.column_stack([rows[i, :, :2], [2, 2, 2]]).ravel().tolist(),
        }
        for i in (0, 2)
    ]
    images = [
        {"id": 40 + i, "file_name": f"{i}.png", "width": 200, "height": 100} for i in range(3)
    ]
    truth = {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "mouse", "keypoints": NAMES}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    ids = {image["file_name"]: image["id"] for image in images}
    write(CocoResults(tmp_path / "found.json", TRUST, "net", ids), found)
    coco = COCO(str(tmp_path / "truth.json"))
    results = coco.loadRes(str(tmp_path / "found.json"))
    evaluation = COCOeval(coco, results, "keypoints")
    evaluation.params.kpt_oks_sigmas = np.full(3, 0.05)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    listed = json.loads((tmp_path / "found.json").read_text())
    assert [row["image_id"] for row in listed] == [40, 42]
    np.testing.assert_allclose(np.reshape(listed[0]["keypoints"], (3, 3)), rows[0], rtol=1e-5)


@pytest.mark.parametrize("name", ["a.csv", "a.slp", "a.nc", "a.json", "a.jsonl"])
def test_the_client_writes_them(name, url, tmp_path, monkeypatch):
    noise(tmp_path / "photos/b.png"), noise(tmp_path / "photos/c.png")
    out = tmp_path / "out" / name
    assert run_client(monkeypatch, tmp_path / "photos", "--url", url, "--results", out) == 0
    assert out.stat().st_size > 100
    beside = {"a_cov.csv"} if name == "a.csv" else set()
    assert {path.name for path in out.parent.iterdir()} == {name} | beside


def test_an_error_leaves_no_file_that_looks_whole(tmp_path):
    for writer in (
        DlcCsv(tmp_path / "a.csv", TRUST, "net"),
        SleapFile(tmp_path / "a.slp", TRUST, "net"),
        Movement(tmp_path / "a.nc", TRUST, "net"),
        CocoResults(tmp_path / "a.json", TRUST, "net"),
    ):
        with pytest.raises(KeyboardInterrupt), writer:
            writer.write(answers()[0])
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "dlc"], "--format needs --results FILE"),
        (["--results", "a.txt"], "give its --format, or a name that ends in one of .csv"),
        (["--results", "-", "--format", "sleap"], "is a stream"),
        (["--results", "a.csv", "--likelihood-distance", "0"], "must be positive, got 0"),
        (["--results", "a.csv", "--coco-images", "b.json"], "belongs to --format coco, not dlc"),
    ],
)
def test_options_that_do_not_fit_are_refused(flags, message, url, tmp_path, monkeypatch):
    noise(tmp_path / "b.png")
    with pytest.raises(ValueError, match=message):
        run_client(monkeypatch, tmp_path / "b.png", "--url", url, *flags)


def test_a_picture_that_the_annotations_lack_is_named(url, tmp_path, monkeypatch):
    noise(tmp_path / "photos/b.png")
    (tmp_path / "truth.json").write_text('{"images": [{"id": 7, "file_name": "c.png"}]}')
    flags = ["--results", tmp_path / "a.json", "--coco-images", tmp_path / "truth.json"]
    with pytest.raises(ValueError, match=r"b\.png is no image of the COCO file"):
        run_client(monkeypatch, tmp_path / "photos", "--url", url, *flags)
