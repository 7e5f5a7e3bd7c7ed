"""Real photographs with every kind of damage among them: each is a reject, and nothing else is lost."""

import shutil

import numpy as np
import pytest
from conversion import convert, damage
from hostile_images import hostile_images
from official_layouts import EMPTY, MPII_FILE, WFLW_LISTS, image, person, points, struct
from scipy.io import loadmat, savemat

from pipelines.verify import verify
from tfhuber.data import records
from tfhuber.data.tfrecord import read_records


def examples(output):
    """What the records hold but for the ids, which count the list's lines."""
    found = []
    for split in ("train", "valid", "test"):
        manifest = records.read_manifest(output)
        if split not in manifest["splits"] or not manifest["splits"][split]["examples"]:
            continue
        for path in records.shard_paths(output, manifest, split):
            with open(path, "rb") as file:
                for record in read_records(file):
                    values = records.decode(record)
                    del values["id"]
                    found.append(
                        {name: np.asarray(value).tolist() for name, value in values.items()}
                    )
    return found


@pytest.mark.slow
def test_damage_among_real_faces(tmp_path, shared_data, shared_records):
    source = tmp_path / "source"
    shutil.copytree(shared_data / "faces_wflw_layout", source)
    whole, _, _ = shared_records("faces_wflw_layout", "wflw")
    bad = damage(source)
    path = source / WFLW_LISTS / "list_98pt_rect_attr_train.txt"
    lines = path.read_text().splitlines()
    for i, (fields, _) in enumerate(bad):
        lines.insert(2 * i + 1, " ".join(fields))
    # As an editor on Windows leaves it.
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig", newline="\r\n")
    manifest, rejects = convert(source, tmp_path / "out", "--shard-examples", "100")
    assert len(bad) >= 60
    assert [reject["reason"] for reject in rejects] == [reason for _, reason in bad]
    assert [r["position"] for r in rejects] == [f"line {2 * i + 2}" for i in range(len(bad))]
    assert manifest["splits"]["train"]["rejects"] == len(bad)
    assert examples(tmp_path / "out") == examples(whole)
    verify(str(tmp_path / "out"))


@pytest.mark.slow
def test_damage_among_real_people(tmp_path, shared_data, shared_records):
    source = tmp_path / "source"
    shutil.copytree(shared_data / "bodies_mpii_layout", source)
    whole, _, before = shared_records("bodies_mpii_layout", "mpii")
    entries, reasons = damaged_people(source)
    release = loadmat(source / MPII_FILE, variable_names=["RELEASE"])["RELEASE"].flat[0]
    joined = np.concatenate([release["annolist"].ravel(), struct(*entries).ravel()])
    flags = np.concatenate([release["img_train"].ravel(), np.ones(len(entries))])
    changed = {"annolist": joined[np.newaxis], "img_train": flags[np.newaxis]}
    (source / MPII_FILE).unlink()
    savemat(source / MPII_FILE, {"RELEASE": changed})
    _, after = convert(source, tmp_path / "out", dataset="mpii")
    new = [reject for reject in after if reject not in before]
    assert len(reasons) >= 60 and {r["id"]: r["reason"] for r in new} == reasons
    assert len(after) == len(before) + len(reasons)
    assert examples(tmp_path / "out") == examples(whole)
    verify(str(tmp_path / "out"))


def damaged_people(source):
    """Entries of MPII's file that are damaged, each in its way; and the reason to refuse each id."""
    hostile = hostile_images()
    for name, (content, _) in hostile.items():
        (source / "images" / name).write_bytes(content)
    shutil.copy(next((source / "images").glob("9*.jpg")), source / "images/good.jpg")
    shutil.copy(source / "images/good.jpg", source / "secret.jpg")
    (source / "images/link.jpg").symlink_to(source / "secret.jpg")
    reasons = {name: reason for name, (_, reason) in hostile.items()}
    reasons |= {"absent.jpg": "missing_image", "link.jpg": "path_outside_source"}
    reasons |= {"../secret.jpg": "path_outside_source", "/etc/passwd": "path_outside_source"}
    entries = [image(person(), name=name)[0] for name in reasons]
    changes = {
        "unlabelled": {"annopoints": EMPTY},
        "malformed_point": {"annopoints": points({16: (1, 1)})},
        "not_a_number": {"annopoints": points({4: ("left", 1)})},
        "non_finite_landmark": {"annopoints": points({4: (np.nan, 1)})},
        "absurd_landmark": {"annopoints": points({4: (1, -1e7)})},
        "no_box": {"scale": EMPTY},
        "non_finite_box": {"scale": np.nan},
        "empty_box": {"scale": 0},
        "absurd_box": {"scale": 1e9},
        "box_outside_image": {"objpos": struct({"x": 9000.0, "y": 130.0})},
    }
    entries.append(image(*(person(**change) for change in changes.values()), name="good.jpg")[0])
    people = {f"good.jpg#{i}": reason for i, reason in enumerate(changes, start=1)}
    return entries, {f"{name}#1": reason for name, reason in reasons.items()} | people
