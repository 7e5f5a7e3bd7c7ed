"""What is predicted on: folders, lists, boxes, records; and the reasons of those without a prediction."""

import json
import os
from collections import Counter

import numpy as np
import pytest
from conversion import contents, convert, faces
from hostile_images import encoded, harmless_images, smooth, undecodable_images, with_jpeg_header
from prediction import album, arguments, close_to, names_in, predict, run
from tiny_model import save_tiny_model

from pipelines.predict.__main__ import main
from pipelines.predict.requests import find_requests
from tfhuber.data import records
from tfhuber.data.tfrecord import frame, read_records
from tfhuber.drawing.ellipses import kappa
from tfhuber.saved_model import session

JPEG = encoded(smooth(), "JPEG")  # 200 x 180


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def sources(path, **options):
    values = {"boxes": None, "images": None, "split": None} | options
    return list(find_requests(str(path), **values))


# --- rejects


def damaged_album(folder):
    """Pictures that no model can use between good ones; the reason for each."""
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}_good.jpg").write_bytes(encoded(smooth(seed=number), "JPEG"))
    damaged = {
        "0_text.jpg": (b"not an image\n", "undecodable_image"),
        "0_half.jpg": (JPEG[: len(JPEG) // 2], "undecodable_image"),
        "1_empty.png": (b"", "undecodable_image"),
        "1_gif.png": (encoded(smooth(), "GIF"), "unsupported_format"),
        "1_huge.jpg": (with_jpeg_header(JPEG, 65_000, 65_000), "image_too_large"),
        "2_small.jpg": (encoded(smooth((20, 10)), "JPEG"), "box_outside_image"),
    }
    for name, (content, _) in damaged.items():
        (folder / name).write_bytes(content)
    (folder / "2_pipe.jpg").symlink_to("/dev/zero")
    (folder / "2_gone.jpg").symlink_to("nowhere")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.jpg").write_bytes(JPEG)
    reasons = {name: reason for name, (_, reason) in damaged.items()}
    return reasons | {"2_pipe.jpg": "missing_image", "2_gone.jpg": "missing_image"}


def test_every_reject_has_its_reason_and_costs_only_itself(model, tmp_path, capsys):
    reasons = damaged_album(tmp_path / "album")
    options = ["--box", "30,30,150,150", "--shard-examples", "4"]
    found, rejects, manifest = predict(model, tmp_path / "album", tmp_path / "out", *options)
    assert {each["source"]: each["reason"] for each in rejects} == reasons
    assert [each["source"] for each in rejects] == sorted(reasons)
    assert all(each["error"] and each["box"] == [30, 30, 150, 150] for each in rejects)
    assert [each["source"] for each in found] == [f"{i}_good.jpg" for i in range(3)]
    for number, answer in enumerate(found):
        file = encoded(smooth(seed=number), "JPEG")
        row = {k: v[0] for k, v in session.run(model, [file], [[30, 30, 150, 150]]).items()}
        assert close_to(answer, row)
    split = manifest["splits"]["pictures"]
    assert (split["pictures"], split["predictions"], split["rejects"]) == (11, 3, 8)
    assert split["rejects_by_reason"] == dict(sorted(Counter(reasons.values()).items()))
    assert manifest["rejects"]["bytes"] == (tmp_path / "out/rejects.jsonl").stat().st_size
    assert "undecodable_image 3" in capsys.readouterr().out


def test_hostile_files_are_rejects_and_good_ones_of_all_kinds_are_not(model, tmp_path):
    folder = tmp_path / "album"
    folder.mkdir()
    hostile = {f"bad_{name}.jpg": data for name, data in undecodable_images().items()}
    good = harmless_images()
    jpegs = (
        "really_jpeg.png",
        "grey.jpg",
        "cmyk.jpg",
        "progressive.jpg",
        "turned.jpg",
        "large.jpg",
    )
    good = {f"good_{name}": good[name] for name in (*jpegs, "alpha.png", "palette.png")}
    for name, data in (hostile | good).items():
        (folder / name).write_bytes(data)
    found, rejects, _ = predict(model, folder, tmp_path / "out")
    # What the model's own decoder takes although Pillow would not is a prediction; nothing is lost.
    names = sorted(hostile | good)
    valid = session.run(
        model, [(folder / name).read_bytes() for name in names], np.zeros((len(names), 4))
    )
    expected = [name for name, is_valid in zip(names, valid["valid"], strict=True) if is_valid]
    assert [each["source"] for each in found] == expected and set(good) <= set(expected)
    assert [each["source"] for each in rejects] == [name for name in names if name not in expected]
    assert {each["reason"] for each in rejects} <= {
        *("undecodable_image", "unsupported_format", "not_valid")
    }


def test_nothing_predicted_is_an_error_and_the_reasons_are_kept(model, tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(ValueError, match=r"nothing could be predicted; \S+ says why for each of 2"):
        predict(model, tmp_path / "list.txt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.partial/data/rejects.jsonl").read_text().count("missing_image") == 2
    (tmp_path / "b.jpg").write_bytes(JPEG)  # Mended, it goes on.
    found, _, _ = predict(model, tmp_path / "list.txt", tmp_path / "out")
    assert [each["source"] for each in found] == ["b.jpg"]


# --- boxes


def test_boxes_come_from_a_file_as_the_client_reads_them(model, tmp_path, capsys):
    source = album(tmp_path / "album", 4)
    first, second, third, fourth = names_in(source)
    text = (
        f"name;x0;y0;x1;y1\n{first};1,5;2;30;40\n{os.path.basename(second)};2;2;30;40\nx;1;1;2;2\n"
    )
    (tmp_path / "boxes.csv").write_text(text)
    found, rejects, manifest = predict(
        model, source, tmp_path / "out", "--boxes", str(tmp_path / "boxes.csv")
    )
    assert [(each["source"], each["box"]) for each in found] == [
        (first, [1.5, 2, 30, 40]),
        (second, [2, 2, 30, 40]),
    ]
    assert [(each["source"], each["reason"]) for each in rejects] == [
        (third, "no_box"),
        (fourth, "no_box"),
    ]
    assert "1 of the boxes in --boxes belong to none of the pictures, the first to x" in (
        capsys.readouterr().out
    )
    assert len(manifest["parameters"]["boxes_sha256"]) == 64
    lines = [{"source": name, "box": [2, 2, 30, 40]} for name in (first, second)]
    (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = ["--boxes", str(tmp_path / "boxes.jsonl"), "--box", "1,1,20,20"]
    found, rejects, _ = predict(model, source, tmp_path / "both", *options)
    assert rejects == []
    assert [each["box"] for each in found] == [[2, 2, 30, 40]] * 2 + [[1, 1, 20, 20]] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,1,2,3\n", "boxes.csv, line 1: must be four numbers"),
        ("a.jpg,1,2,3,4\na.jpg,1,2,3,5\n", "boxes.csv, line 2: a second box for a.jpg"),
        ("a.jpg,3,2,1,4\n", "boxes.csv, line 1: .* is empty"),
    ],
)
def test_a_fault_in_a_file_of_boxes_is_one_line(model, tmp_path, text, message):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        predict(
            model,
            album(tmp_path / "album", 1),
            tmp_path / "out",
            "--boxes",
            f"{tmp_path}/boxes.csv",
        )
    assert {path.name for path in tmp_path.iterdir()} == {"album", "boxes.csv"}


# --- folders and lists


def test_a_folder_is_looked_through_to_its_ends(tmp_path):
    names = ["b.jpg", "a/z.PNG", "a/b/c/d.jpeg", "a.jpg", "ünï 雪.jpg", "a b/[1]*?.jpg"]
    for name in [*names, "no.gif", ".cache/a.jpg", "a/.b.jpg"]:
        (tmp_path / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "album" / name).write_bytes(JPEG)
    found = sources(tmp_path / "album")
    # The client's order: that of the parts of the paths.
    assert [each.source for each in found] == [
        *("a/b/c/d.jpeg", "a/z.PNG", "a b/[1]*?.jpg", "a.jpg", "b.jpg", "ünï 雪.jpg")
    ]
    assert all(each.box is None and each.path.endswith(each.source) for each in found)


def test_names_in_a_list_begin_in_its_folder_or_where_told_or_at_the_root(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.jpg\r\n\n  b c.jpg \n/x/d.jpg\n\xff.jpg\n")
    at = str(tmp_path)
    assert [each.path for each in sources(tmp_path / "list.txt")] == [
        *(f"{at}/a.jpg", f"{at}/b c.jpg", "/x/d.jpg", f"{at}/\udcff.jpg")
    ]
    found = sources(tmp_path / "list.txt", images="/elsewhere")
    assert [each.path for each in found][:3] == [
        "/elsewhere/a.jpg",
        "/elsewhere/b c.jpg",
        "/x/d.jpg",
    ]
    assert [each.source for each in found][:3] == ["a.jpg", "b c.jpg", "/x/d.jpg"]


def test_a_list_may_have_a_box_on_each_line_and_a_picture_many(model, tmp_path):
    album(tmp_path / "album", 1)
    (tmp_path / "people.csv").write_text("".join(f"0000.jpg,{i},2,{i + 20},40\n" for i in range(5)))
    found, _, _ = predict(
        model, tmp_path / "people.csv", tmp_path / "out", "--images", f"{tmp_path}/album/night/late"
    )
    assert [each["box"] for each in found] == [[i, 2, i + 20, 40] for i in range(5)]
    assert len({json.dumps(each["landmarks"]) for each in found}) == 5


def test_a_name_with_bytes_that_are_no_text_is_shown_with_backslashes(model, tmp_path):
    (tmp_path / "album").mkdir()
    with open(os.path.join(os.fsencode(tmp_path), b"album/\xff.jpg"), "wb") as file:
        file.write(JPEG)
    found, _, _ = predict(model, tmp_path / "album", tmp_path / "out")
    assert [each["source"] for each in found] == ["\\udcff.jpg"]


def test_one_picture_is_a_source_too(model, tmp_path):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    found, _, _ = predict(model, tmp_path / "a.jpg", tmp_path / "out", "--box", "10,10,90,90")
    assert [each["source"] for each in found] == [str(tmp_path / "a.jpg")]


# --- records


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Converted faces whose crops are smaller than the originals, in two splits."""
    folder = tmp_path_factory.mktemp("data")
    convert(faces(folder / "source"), folder / "out", "--size", "48", "--shard-examples", "4")
    return folder / "out"


def examples(path):
    with path.open("rb") as file:
        return [records.decode(record) for record in read_records(file)]


def test_records_are_answered_in_the_original_images_pixels(model, data, tmp_path):
    found, rejects, manifest = predict(model, data, tmp_path / "out", "--shard-examples", "5")
    stored = [each for path in sorted(data.glob("train*")) for each in examples(path)]
    stored += [each for path in sorted(data.glob("test*")) for each in examples(path)]
    assert rejects == [] and len(found) == len(stored) == 9
    assert [each["source"] for each in found] == [each["id"].decode() for each in stored]
    assert list(manifest["splits"]) == ["train", "test"]
    assert {path.name for path in (tmp_path / "out").glob("t*")} == {
        *("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl")
    }
    for answer, example in zip(found, stored, strict=True):
        assert answer["box"] == example["box"].tolist() == [40, 30, 140, 150]
        scale_x, _, left, _, scale_y, top, *_ = example["crop_to_original"].astype(float)
        assert scale_x > 1.5  # What follows shows something.
        low, high = (np.array([x, y], float) for x, y in ((40, 30), (140, 150)))
        shift, scale = np.array([left, top]), np.array([scale_x, scale_y])
        box = np.concatenate([(low - shift) / scale, (high - shift) / scale])
        row = session.run(model, [example["image"]], [box])
        expected = row["landmarks"][0] * scale + shift
        np.testing.assert_allclose(answer["landmarks"], expected, rtol=1e-5, atol=1e-3)
        spread = row["covariance"][0] * np.outer(scale, scale)
        np.testing.assert_allclose(answer["covariance"], spread, rtol=1e-4)
        # The factor still belongs to the covariance, and is symmetric.
        factor = np.array(answer["precision_factor"])
        again = kappa("huber", 1.0) * np.linalg.inv(factor @ factor)
        np.testing.assert_allclose(again, spread, rtol=1e-4)
        np.testing.assert_allclose(factor, np.swapaxes(factor, 1, 2), rtol=1e-5)


def test_one_split_or_one_file_of_a_data_set_may_be_chosen(model, data, tmp_path):
    found, _, manifest = predict(model, data, tmp_path / "split", "--split", "test")
    assert len(found) == 3 and list(manifest["splits"]) == ["test"]
    path = data / "test-00000-of-00001.tfrecord"
    again, _, manifest = predict(model, path, tmp_path / "file")
    assert again == found and list(manifest["splits"]) == ["pictures"]


def test_damaged_records_are_rejects(model, data, tmp_path):
    """A record that is no example costs itself; a wrong checksum, all that come after it."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, content in contents(data).items():
        (folder / name).write_bytes(content)
    path = folder / "train-00000-of-00002.tfrecord"
    with path.open("rb") as file:
        good = [frame(record) for record in read_records(file)]
    path.write_bytes(good[0] + frame(b"no example") + good[2] + good[3][:-1] + b"\0")
    found, rejects, _ = predict(model, folder, tmp_path / "out", "--split", "train")
    assert [(each["source"], each["reason"]) for each in rejects] == [
        (f"{path.name}#2", "bad_record"),
        (f"{path.name}#4", "unreadable_record"),
    ]
    assert "record 4: the checksum of its content is wrong" in rejects[1]["error"]
    assert len(found) == 4


# --- one line for what the user can mend


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nowhere", [], "nowhere: there is no such file or folder"),
        ("empty", [], "empty holds no picture"),
        ("album", ["--split", "test"], "--split belongs to a converted data set"),
        ("album", ["--images", "x"], "--images belongs to a list of names"),
        ("album", ["--batch", "0"], "--batch must be between 1 and 256, got 0"),
        ("album", ["--shard-examples", "10001"], "--shard-examples must be between 1 and 10000"),
        ("album", ["--processes", "0"], "--processes must be between 1 and 1024"),
        ("album", ["--box", "1,2,3"], "--box must be four numbers"),
        ("album", ["--boxes", ""], "--boxes must not be empty"),
        ("album", ["--boxes", "nowhere.csv"], "nowhere.csv"),
        ("album", ["--bacth", "3"], "'--bacth' is no option of this command, nor of Beam"),
        ("album", ["--runner", "NoRunner"], "norunner"),
        ("people.csv", ["--box", "1,2,3,4"], "--box and --boxes do not go with"),
    ],
)
def test_nonsense_is_one_line_and_leaves_nothing(model, tmp_path, source, options, message):
    (tmp_path / "empty").mkdir()
    album(tmp_path / "album", 1)
    (tmp_path / "people.csv").write_text("a.jpg,1,2,3,4\n")
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises((ValueError, OSError)) as error:
        main(arguments(model, tmp_path / source, tmp_path / "out", *options))
    assert message.lower() in str(error.value).lower()
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("output", ["album", "."])
def test_what_is_read_is_never_replaced(model, tmp_path, output):
    source = album(tmp_path / "album", 1)
    with pytest.raises(ValueError, match="must not be the --source, nor hold it"):
        main(arguments(model, source, tmp_path / output, "--overwrite"))
    with pytest.raises(ValueError, match="must not be the --model, nor hold it"):
        main(arguments(model, source, model.parent, "--overwrite"))


def test_predictions_are_replaced_on_request_only(model, tmp_path):
    source, output = album(tmp_path / "album", 2), tmp_path / "out"
    predict(model, source, output)
    with pytest.raises(ValueError, match="already holds predictions; --overwrite replaces it"):
        predict(model, source, output)
    main(arguments(model, source, output, "--overwrite", "--format", "parquet"))
    assert {path.suffix for path in output.glob("pictures*")} == {".parquet"}


def test_models_that_cannot_be_used_are_one_line(model, tmp_path):
    source = album(tmp_path / "album", 1)
    with pytest.raises(ValueError, match="holds no exported model"):
        main(arguments(tmp_path / "album", source, tmp_path / "out"))
    plain = save_tiny_model(tmp_path / "plain", tta=False)
    with pytest.raises(ValueError, match="--tta needs a model that was trained on mirror images"):
        main(arguments(plain, source, tmp_path / "out", "--signature", "tta"))
    (plain / "saved_model.pb").write_bytes(b"damaged")
    code, _, err = run(*arguments(plain, source, tmp_path / "out"))
    assert code == 2 and "Traceback" not in err
    assert err.splitlines()[-1].startswith(f"error: {plain} cannot be loaded: ")
    (plain / "assets.extra/model.json").unlink()
    with pytest.raises(ValueError, match=r"model\.json cannot be read"):
        main(arguments(plain, source, tmp_path / "out"))
