"""WFLW's and MPII's layouts, written line by line and field by field for the tests."""

import json

import numpy as np
from scipy.io import savemat

WFLW_LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"
MPII_FILE = "mpii_human_pose_v1_u12_1.mat"
EMPTY = np.zeros((0, 0))  # MATLAB's []
ALL_JOINTS = {joint: (50 + 3 * joint, 40 + 5 * joint) for joint in range(16)}


def face(image="0--Parade/a.jpg", box=(40, 30, 140, 150), attributes=(0, 1, 0, 0, 1, 0), seed=0):
    """The 207 fields of a face."""
    points = np.random.default_rng(seed).uniform(40, 140, 196)
    return [*(f"{p:.6f}" for p in points), *map(str, (*box, *attributes)), image]


def write_wflw(directory, train=(), test=(), **options):
    """An empty image folder and the two lists; each line a list of fields or a text."""
    (directory / "WFLW_images").mkdir(parents=True)
    (directory / WFLW_LISTS).mkdir(parents=True)
    for split, lines in (("train", train), ("test", test)):
        text = "".join((line if isinstance(line, str) else " ".join(line)) + "\n" for line in lines)
        path = directory / WFLW_LISTS / f"list_98pt_rect_attr_{split}.txt"
        path.write_text(text, **{"encoding": "utf-8", **options})
    return directory


def real_faces(shared_data):
    """Names, points [98, 2] and boxes of the original samples."""
    samples = json.loads((shared_data / "real_samples/wflw/test_wflw.json").read_text())
    names = {image["id"]: image["file_name"] for image in samples["images"]}
    for face in samples["annotations"]:
        x, y, width, height = face["bbox"]
        points = np.array(face["keypoints"]).reshape(98, 3)[:, :2]
        yield names[face["image_id"]], points, (x, y, x + width, y + height)


def struct(*records):
    """A MATLAB struct array, 1 x n; all records have the same fields."""
    array = np.empty((1, len(records)), [(name, object) for name in records[0]])
    for i, record in enumerate(records):
        array[0, i] = tuple(record.values())
    return array


def points(joints, is_visible=1):
    """`annopoints` of (id, (x, y)) pairs or of a dict of them, in MATLAB's coordinates."""
    pairs = joints.items() if isinstance(joints, dict) else joints
    fields = [{"x": x, "y": y, "id": i, "is_visible": is_visible} for i, (x, y) in pairs]
    return struct({"point": struct(*fields)})


def person(**changes):
    """A person as the official file has them; a field set to None is left out."""
    fields = {"x1": 61, "y1": 41, "x2": 91, "y2": 81, "annopoints": points(ALL_JOINTS)}
    fields |= {"scale": 1.5, "objpos": struct({"x": 120.0, "y": 130.0})} | changes
    return {name: value for name, value in fields.items() if value is not None}


def image(*people, name="015601864.jpg", train=1):
    """An entry of `annolist`, with its flag; people of one image share their fields."""
    return {
        "image": struct({"name": name}),
        "annorect": struct(*people) if people else EMPTY,
        "frame_sec": EMPTY,
        "vididx": EMPTY,
    }, train


def write_mpii(directory, *images):
    (directory / "images").mkdir(parents=True)
    entries, flags = zip(*images, strict=True)
    release = {"annolist": struct(*entries), "img_train": np.array([flags]), "version": "12"}
    savemat(directory / MPII_FILE, {"RELEASE": release})
    return directory


def real_people(shared_data):
    """The original samples as other projects publish them, each with its entry for MPII's file."""
    for sample in json.loads((shared_data / "real_samples/mpii/test_mpii.json").read_text()):
        joints = {
            joint: (x + 1, y + 1)
            for joint, (x, y) in enumerate(sample["joints"])
            if sample["joints_vis"][joint]
        }
        x, y = sample["center"]
        centre = struct({"x": x + 1, "y": y + 1})
        rect = person(annopoints=points(joints), scale=sample["scale"], objpos=centre)
        yield sample, image(rect, name=sample["image"])
