"""The sample data: official layouts, known noise, labels where they belong, honest errors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from pipelines.sample.label_noise import KAPPA, huber_noise, label_covariance
from pipelines.sample_data import read_truth, write_sample_data

TRAIN, TEST = 60, 24
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wflw(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sample") / "wflw"
    counts = write_sample_data("wflw", directory, train=TRAIN, test=TEST, processes=1)
    return directory, counts


@pytest.fixture(scope="module")
def mpii(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sample") / "mpii"
    counts = write_sample_data("mpii", directory, train=TRAIN, test=TEST, processes=1)
    return directory, counts


def wflw_lines(directory: Path, split: str) -> list[list[str]]:
    folder = directory / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    return [x.split() for x in (folder / f"list_98pt_rect_attr_{split}.txt").open()]


def mpii_release(directory: Path):
    return loadmat(directory / "mpii_human_pose_v1_u12_1.mat")["RELEASE"][0, 0]


def file_bytes(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


# --- noise ---------------------------------------------------------------------------------------


def test_kappa_is_half_the_second_moment_of_the_huber_radius():
    r = np.linspace(0.0, 60.0, 2_000_001)
    mass = r * np.exp(-np.where(r <= 1, r**2 / 2, r - 0.5))
    assert (
        pytest.approx(np.trapezoid(mass * r**2, r) / np.trapezoid(mass, r) / 2, rel=1e-8) == KAPPA
    )
    assert pytest.approx(3.07647, abs=5e-6) == KAPPA


def test_huber_noise_has_the_covariance_and_the_radial_distribution_it_claims():
    n = 400_000
    covariance = np.array([[4.0, 1.5], [1.5, 1.0]])
    noise = huber_noise(np.random.default_rng(0), np.broadcast_to(covariance, (n, 2, 2)))
    # The radius has kurtosis about 9, so an entry's relative standard error is about 0.4 %.
    np.testing.assert_allclose(noise.T @ noise / n, covariance, rtol=0.025)
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=5 * np.sqrt(4.0 / n))
    squared = np.einsum("ni,ij,nj->n", noise, np.linalg.inv(covariance), noise) * KAPPA
    radius = np.sqrt(squared)
    # CDF at 1: (1 - exp(-1/2)) / I_1; beyond: 1 - exp(1/2) (r + 1) exp(-r) / I_1.
    total = 1 + np.exp(-0.5)
    for at in (0.5, 1.0, 2.0, 4.0, 8.0):
        inside = 1 - np.exp(-(at**2) / 2) if at <= 1 else total - np.exp(0.5 - at) * (at + 1)
        error = np.sqrt(0.25 / n)
        assert (radius <= at).mean() == pytest.approx(inside / total, abs=4 * error)


def test_label_covariance_follows_direction_haze_and_depth():
    def covariance(factor, depth, direction):
        along, across = np.array([0.01]), np.array([0.005])
        args = along, across, np.array([direction]), factor, np.array([depth]), 200.0
        return label_covariance(*args)[0]

    np.testing.assert_allclose(covariance(1.0, 0.0, [0.0, 7.0]), np.diag([1.0, 4.0]))
    np.testing.assert_allclose(covariance(2.0, 0.0, [1.0, 0.0]), np.diag([16.0, 4.0]))
    diagonal = covariance(1.0, 0.0, [1.0, 1.0])
    np.testing.assert_allclose(diagonal, [[2.5, 1.5], [1.5, 2.5]])
    deviation = [np.sqrt(covariance(1.0, d, [0, 1])[0, 0]) for d in (0.0, 15.0, 30.0, 90.0)]
    np.testing.assert_allclose(deviation, [1.0, 2.25, 3.5, 3.5])
    heaviest = covariance(100.0, 90.0, [1.0, 0.0])
    np.testing.assert_allclose(np.sqrt(np.diag(heaviest)), 0.065 * 200.0)


@pytest.mark.parametrize("name", ["wflw", "mpii"])
def test_published_labels_are_truth_plus_noise_of_the_stated_covariance(name, request):
    directory, _ = request.getfixturevalue(name)
    labels = wflw_labels(directory) if name == "wflw" else mpii_labels(directory)
    truth = read_truth(directory, "train")
    assert labels.keys() == truth.keys()
    whitened = []
    for identity, (points, labelled) in labels.items():
        landmarks, covariance = (part[labelled] for part in truth[identity])
        root = np.linalg.cholesky(covariance)
        whitened.append(np.linalg.solve(root, (points[labelled] - landmarks)[..., None])[..., 0])
    whitened = np.concatenate(whitened)
    n = len(whitened)
    assert n > (5000 if name == "wflw" else 700)
    # Fourth moment over squared second for one coordinate: 5.4; six standard errors.
    second = whitened.T @ whitened / n
    np.testing.assert_allclose(second, np.eye(2), atol=6 * np.sqrt(4.4 / n))
    np.testing.assert_allclose(whitened.mean(axis=0), 0.0, atol=5 / np.sqrt(n))


@pytest.mark.parametrize("name", ["wflw", "mpii"])
def test_noise_is_spread_over_a_factor_of_eight_and_is_mostly_light(name, request):
    directory, _ = request.getfixturevalue(name)
    relative = []
    for landmarks, covariance in read_truth(directory, "train").values():
        size = np.ptp(landmarks, axis=0).max()
        relative.append(np.sqrt(np.trace(covariance, axis1=1, axis2=2) / 2) / size)
    low, middle, high = np.quantile(relative, [0.01, 0.5, 0.99])
    assert high / low > 8
    assert low > 0.003 and high < 0.085 and middle < 0.03


# --- layouts -------------------------------------------------------------------------------------


def wflw_labels(directory: Path) -> dict:
    labels = {}
    for number, fields in enumerate(wflw_lines(directory, "train"), start=1):
        points = np.array(fields[:196], float).reshape(98, 2)
        labels[f"{fields[-1]}#{number}"] = points, np.ones(98, bool)
    return labels


def mpii_labels(directory: Path) -> dict:
    """Training people's labels, from 0; a joint given twice counts by its mean."""
    release, labels = mpii_release(directory), {}
    for entry, training in zip(release["annolist"][0], release["img_train"][0], strict=True):
        rects = entry["annorect"]
        if not training or rects.dtype.names is None or "annopoints" not in rects.dtype.names:
            continue
        for ridx, rect in enumerate(rects[0], start=1):
            if rect["annopoints"].size == 0:
                continue
            given = [[] for _ in range(16)]
            for point in rect["annopoints"][0, 0]["point"][0]:
                given[point["id"].item()].append([point["x"].item(), point["y"].item()])
            points = np.array([np.mean(p, axis=0) - 1 if p else [0.0, 0.0] for p in given])
            name = entry["image"][0, 0]["name"][0]
            labels[f"{name}#{ridx}"] = points, np.array([bool(p) for p in given])
    return labels


@pytest.mark.parametrize("split", ["train", "test"])
def test_wflw_lists_have_the_official_fields_and_ids_match_the_truth(wflw, split):
    directory, counts = wflw
    lines = wflw_lines(directory, split)
    images = [fields[-1] for fields in lines]
    ids = [f"{image}#{number}" for number, image in enumerate(images, start=1)]
    assert list(read_truth(directory, split)) == ids
    assert len(ids) == counts[split] > len(set(images)) == (TRAIN if split == "train" else TEST)
    for fields in lines:
        assert len(fields) == 207
        points = np.array(fields[:196], float).reshape(98, 2)
        x0, y0, x1, y1 = (int(n) for n in fields[196:200])
        assert set(fields[200:206]) <= {"0", "1"}
        with Image.open(directory / "WFLW_images" / fields[-1]) as image:
            assert image.mode == "RGB" and image.format == "JPEG"
            assert min(image.size) >= 150 and max(image.size) <= 400
            assert x0 < x1 and y0 < y1
        assert np.all(np.median(points, axis=0) > (x0, y0))
        assert np.all(np.median(points, axis=0) < (x1, y1))
    attributes = np.array([fields[200:206] for fields in wflw_lines(directory, "train")], int)
    assert np.all(attributes.any(axis=0)) and not np.any(attributes.all(axis=0))


def test_mpii_structures_nest_as_in_the_official_file(mpii):
    directory, counts = mpii
    release = mpii_release(directory)
    assert release.dtype.names == (
        "annolist",
        "img_train",
        "version",
        "single_person",
        "act",
        "video_list",
    )
    assert release["annolist"].shape == release["img_train"].shape == (1, TRAIN + TEST)
    assert release["act"].shape == release["single_person"].shape == (TRAIN + TEST, 1)
    assert release["annolist"].dtype.names == ("image", "annorect", "frame_sec", "vididx")
    assert release["act"].dtype.names == ("act_name", "cat_name", "act_id")
    assert release["version"][0] == "12"
    rect = release["annolist"][0, 0]["annorect"]
    assert rect.dtype.names == ("x1", "y1", "x2", "y2", "annopoints", "scale", "objpos")
    assert rect[0, 0]["objpos"].dtype.names == ("x", "y")
    points = rect[0, 0]["annopoints"][0, 0]["point"]
    assert points.dtype.names == ("x", "y", "id", "is_visible")
    assert len(mpii_labels(directory)) == counts["train"]
    for entry in release["annolist"][0]:
        with Image.open(directory / "images" / entry["image"][0, 0]["name"][0]) as image:
            assert image.mode == "RGB"


def test_mpii_file_holds_every_irregularity(mpii):
    release = mpii_release(mpii[0])
    seen = set()
    for entry, training in zip(release["annolist"][0], release["img_train"][0], strict=True):
        rects = entry["annorect"]
        split = "train" if training else "test"
        if rects.size == 0:
            seen.add(f"{split}: empty annorect")
            continue
        if not training:
            assert rects.dtype.names == ("scale", "objpos")
            continue
        if "annopoints" not in rects.dtype.names:
            seen.add("field annopoints absent")
            continue
        for rect in rects[0]:
            if rect["x1"].size == 0:
                seen.add("no head box")
            if rect["annopoints"].size == 0:
                seen.add("empty annopoints")
                continue
            points = rect["annopoints"][0, 0]["point"][0]
            ids = [point["id"].item() for point in points]
            seen.add("joint twice" if len(set(ids)) < len(ids) else "each joint once")
            seen.add("joint missing" if len(set(ids)) < 16 else "all joints")
            for point in points:
                visible = point["is_visible"]
                kind = "empty" if visible.size == 0 else visible.dtype.kind
                seen.add(f"is_visible {kind}")
                assert kind == "empty" or visible.item() in (0, 1, "0", "1")
    assert seen == {
        "train: empty annorect",
        "test: empty annorect",
        "field annopoints absent",
        "no head box",
        "empty annopoints",
        "joint twice",
        "each joint once",
        "joint missing",
        "all joints",
        "is_visible empty",
        "is_visible u",
        "is_visible U",
    }


def test_mpii_scale_and_position_hold_the_person_and_count_from_one(mpii):
    directory, _ = mpii
    release, truth = mpii_release(directory), {}
    for split in ("train", "test"):
        truth |= read_truth(directory, split)
    checked = 0
    for entry in release["annolist"][0]:
        name = entry["image"][0, 0]["name"][0]
        for ridx in range(1, entry["annorect"].size + 1):
            if f"{name}#{ridx}" not in truth:
                continue
            rect = entry["annorect"][0, ridx - 1]
            objpos = rect["objpos"][0, 0]
            centre = np.array([objpos["x"].item(), objpos["y"].item()]) - 1
            landmarks, _ = truth[f"{name}#{ridx}"]
            reach = np.abs(landmarks - centre).max()
            assert 0.5 < reach / (100 * rect["scale"].item()) < 1.0
            box_centre = (landmarks.min(axis=0) + landmarks.max(axis=0)) / 2
            np.testing.assert_allclose(centre, box_centre, atol=0.51)
            checked += 1
    assert checked > TRAIN


# --- determinism and errors ----------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["wflw", "mpii", "300w_lp"])
def test_pictures_depend_on_seed_and_index_alone(dataset, tmp_path):
    write_sample_data(dataset, tmp_path / "a", train=6, test=2, seed=3, processes=1)
    write_sample_data(dataset, tmp_path / "b", train=6, test=2, seed=3, processes=2)
    write_sample_data(dataset, tmp_path / "longer", train=7, test=2, seed=3, processes=1)
    write_sample_data(dataset, tmp_path / "other", train=6, test=2, seed=4, processes=1)
    a, longer, other = (file_bytes(tmp_path / name) for name in ("a", "longer", "other"))
    assert a == file_bytes(tmp_path / "b")
    pictures = [name for name in a if name.endswith(".jpg")]
    assert len(pictures) >= 8
    assert all(a[name] == longer[name] != other.get(name) for name in pictures)


def test_existing_data_is_kept_unless_told_to_replace_it(tmp_path):
    output = tmp_path / "data"
    output.mkdir()
    write_sample_data("wflw", output, train=1, test=1, processes=1)  # an empty directory is fine
    before = file_bytes(output)
    with pytest.raises(ValueError, match="already holds sample data; --overwrite"):
        write_sample_data("wflw", output, train=2, test=1, processes=1)
    assert file_bytes(output) == before
    write_sample_data("mpii", output, train=2, test=1, processes=1, overwrite=True)
    assert not (output / "WFLW_images").exists() and (output / "images").is_dir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="does not hold sample data"):
        write_sample_data("wflw", tmp_path / "mine", train=1, test=1, overwrite=True)
    with pytest.raises(ValueError, match="does not hold sample data"):
        write_sample_data("wflw", tmp_path / "mine" / "thesis.txt", train=1, test=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "mine"]


def test_an_aborted_run_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pipelines.sample_data.write_wflw_list", fail)
    with pytest.raises(OSError, match="disk full"):
        write_sample_data("wflw", tmp_path / "data", train=1, test=1, processes=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "coco"}, "dataset must be one of wflw, mpii, 300w_lp, got 'coco'"),
        ({"train": 0}, "train must be at least 1, got 0"),
        ({"test": -1}, "test must be at least 1, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"processes": 0}, "processes must be at least 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_named(change, message, tmp_path):
    arguments = {"dataset": "wflw", "output": tmp_path / "data", "train": 1, "test": 1} | change
    with pytest.raises(ValueError, match=message):
        write_sample_data(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_and_answers_mistakes_in_one_line(tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "pipelines.sample_data", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    output = tmp_path / "data"
    base = ("--dataset", "wflw", "--output", str(output), "--train", "2", "--test", "1")
    done = run(*base, "--processes", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{output}: 2 train + 1 test examples in WFLW's layout")
    with (output / "truth_train.jsonl").open() as lines:
        entry = json.loads(next(lines))
    assert np.shape(entry["landmarks"]) == (98, 2)
    assert np.shape(entry["covariance"]) == (98, 2, 2)
    again = run(*base)
    assert again.returncode == 2 and again.stdout == ""
    assert again.stderr.startswith("error: ") and again.stderr.count("\n") == 1
