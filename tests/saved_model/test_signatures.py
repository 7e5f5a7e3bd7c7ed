"""An exported model's numbers are the training side's, and what a row holds fails that row alone."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from hostile_images import encoded, hostile_images, smooth, with_field
from PIL import Image, ImageOps

from serving.errors import RequestError
from serving.local_server.saved_model import SavedModel
from tfhuber.distributions.elliptical import Elliptical
from tfhuber.geometry import projective
from tfhuber.geometry.box_square import SQUARE_RULES
from tfhuber.runs.load import load_run
from tfhuber.saved_model import decoding, session, signatures

SIGNATURES = ["metadata", "serving_default", "tensor", "tta"]


@pytest.fixture(scope="module")
def fresh():
    """Calls functions in a process that shares nothing with the model's maker."""
    with session.fresh_process() as call:
        yield call


@pytest.fixture(scope="module")
def model(exported):
    return SavedModel(exported / "1")


@pytest.fixture(scope="module")
def served(model):
    """A function from files, boxes and a signature to the exported model's outputs."""

    def run(files, boxes, signature="serving_default"):
        rows = {"image_bytes": np.array(files, object), "box": np.array(boxes, np.float32)}
        return model.run(signature, rows)

    return run


def training_side(predictor, files, boxes, tta):
    """Positions and precision factors in original pixels, in float64 from where the network ends."""
    size, rule = predictor.options.image_size, predictor.landmark_set.square
    crops, scales, offsets = [], [], []
    for file, box in zip(files, boxes, strict=True):
        image = tf.io.decode_image(file, channels=3, expand_animations=False)
        crop, h, _ = decoding.network_crop(image, tf.constant(box, tf.float32), size, rule)
        crops.append(crop)
        scales.append(h.numpy()[0, 0])
        offsets.append(h.numpy()[:2, 2])
    predicted = predictor.predict(tf.stack(crops), tta)
    scale = np.array(scales, np.float64)[:, None, None]
    points = (predicted.loc - np.array(offsets)[:, None]) / scale
    return points, predicted.precision_factor * scale[..., None], tf.stack(crops)


def compare(fresh, predictor, directory, files, boxes):
    """Every signature that predicts, in a fresh process, against the training side."""
    boxes = np.array(boxes, np.float32)
    crops = np.round(training_side(predictor, files, boxes, "none")[2]).astype(np.uint8)
    rows = {"image_bytes": np.array(files, object), "box": boxes}
    requests = [("serving_default", rows), ("tta", rows), ("tensor", {"image": crops})]
    *found, tensor = fresh(session.answers, directory, requests)
    kappa = predictor.energy.kappa(2)
    for answer, tta in zip(found, signatures.IMAGE_SIGNATURES.values(), strict=True):
        points, factor, _ = training_side(predictor, files, boxes, tta)
        assert answer["valid"].all()
        np.testing.assert_allclose(answer["landmarks"], points, rtol=0, atol=1e-4)
        np.testing.assert_allclose(answer["precision_factor"], factor, rtol=1e-4, atol=1e-6)
        covariance = kappa * np.linalg.inv(factor @ factor)
        close = 1e-5 * np.abs(covariance).max()
        np.testing.assert_allclose(answer["covariance"], covariance, rtol=1e-3, atol=close)
    predicted = predictor.predict(tf.cast(crops, tf.float32))
    np.testing.assert_allclose(tensor["landmarks"], predicted.loc, rtol=0, atol=1e-4)
    covariance = predicted.covariance(predictor.energy)
    close = 1e-5 * np.abs(covariance).max()
    np.testing.assert_allclose(tensor["covariance"], covariance, rtol=1e-3, atol=close)


def test_every_signature_equals_the_training_side(fresh, tiny_run, picture, exported):
    boxes = [[20, 20, 150, 160], [0, 0, 0, 0], [-30, 40, 60, 400]]
    compare(fresh, load_run(tiny_run), exported / "1", [picture] * 3, boxes)


def real_faces(folder):
    """Photographs in WFLW's layout, with the annotated boxes."""
    lists = folder / "WFLW_annotations/list_98pt_rect_attr_train_test"
    for line in (lists / "list_98pt_rect_attr_test.txt").read_text().splitlines():
        *_, x0, y0, x1, y1 = fields = line.split()[:200]
        assert len(fields) == 200
        yield folder / "WFLW_images" / line.split()[-1], [x0, y0, x1, y1]


def real_people(folder):
    """Photographs in MPII's layout, with a box in their middle or one that reaches beyond the image."""
    for i, path in enumerate(sorted((folder / "images").glob("*.jpg"))):
        width, height = Image.open(path).size
        x, y = (0.3, 0.2) if i % 2 else (0.7, 0.6)
        yield path, [width * x, height * y, width * (x + 0.4), height * (y + 0.5)]


@pytest.mark.parametrize(
    ("layout", "real"), [("faces_wflw_layout", real_faces), ("bodies_mpii_layout", real_people)]
)
def test_on_real_photographs_too(fresh, tiny_run, exported, shared_data, layout, real):
    """16 examples from all over."""
    if not (shared_data / layout).is_dir():
        pytest.skip(f"no photographs in {shared_data / layout}")
    examples = list(real(shared_data / layout))
    paths, boxes = zip(*examples[:: len(examples) // 16][:16], strict=True)
    assert len(paths) == 16
    files = [path.read_bytes() for path in paths]
    compare(fresh, load_run(tiny_run), exported / "1", files, boxes)


@pytest.mark.parametrize("rule", SQUARE_RULES)
def test_the_precision_factor_gives_the_log_density(tiny_run, picture, rule):
    """In original pixels, the log-density at a point is the network crop's there plus log |det J|."""
    predictor = load_run(tiny_run)
    landmark_set = dataclasses.replace(predictor.landmark_set, square=rule)
    predictor = dataclasses.replace(predictor, landmark_set=landmark_set)
    box = np.array([[20, 20, 150, 100]], np.float32)
    answer = signatures.image_function(predictor)(tf.constant([picture]), tf.constant(box))
    found = {name: value.numpy() for name, value in answer.items()}
    image, _ = decoding.decode(tf.constant(picture))
    size, rule = predictor.options.image_size, predictor.landmark_set.square
    crop, h, _ = decoding.network_crop(image, box[0], size, rule)
    predicted = tf.nest.map_structure(
        lambda value: tf.cast(value, tf.float64), predictor.predict(crop[None])
    )
    offsets = np.random.default_rng(0).normal(0, 30, (50, *predicted.loc.shape))
    points = found["landmarks"].astype(np.float64) + offsets
    h = tf.cast(h, tf.float64)
    here = predicted.distribution(predictor.energy).log_prob(projective.apply_map(h, points))
    expected = here + np.linalg.slogdet(h[:2, :2])[1]
    there = Elliptical(
        found["landmarks"].astype(np.float64),
        found["precision_factor"].astype(np.float64),
        predictor.energy,
    )
    covariance = predictor.energy.kappa(2) * np.linalg.inv(
        found["precision_factor"] @ found["precision_factor"]
    )
    close = 1e-5 * np.abs(covariance).max()
    np.testing.assert_allclose(found["covariance"], covariance, rtol=1e-3, atol=close)
    # Only positions and factors are rounded to float32, at radii of up to hundreds.
    np.testing.assert_allclose(there.log_prob(points), expected, rtol=1e-5, atol=1e-4)


def test_fused_with_its_mirror_image_a_mirrored_picture_gives_the_mirrored_answer(
    tiny_run, picture, served
):
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    files = []
    for view in (image, ImageOps.mirror(image)):
        out = io.BytesIO()
        view.save(out, "png")
        files.append(out.getvalue())
    found = served(files, np.zeros((2, 4)), "tta")
    order = list(load_run(tiny_run).landmark_set.mirror)
    mirrored = found["landmarks"][1][order] * [-1, 1] + [image.width - 1, 0]
    np.testing.assert_allclose(mirrored, found["landmarks"][0], atol=0.02)
    covariance = found["covariance"][1][order] * [[1, -1], [-1, 1]]
    np.testing.assert_allclose(covariance, found["covariance"][0], rtol=0.01, atol=0.05)


def test_all_zeros_is_the_whole_image(picture, served):
    width, height = Image.open(io.BytesIO(picture)).size
    boxes = [[0, 0, 0, 0], [-0.5, -0.5, width - 0.5, height - 0.5]]
    found = served([picture] * 2, boxes)
    np.testing.assert_allclose(found["landmarks"][0], found["landmarks"][1], atol=1e-3)


def test_a_shifted_picture_shifts_the_answer(picture, served):
    """Original pixels in, original pixels out: padding a picture moves everything by the padding."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    padded = Image.new("RGB", (image.width + 70, image.height + 50))
    padded.paste(image, (70, 50))
    files = []
    for img in (image, padded):
        out = io.BytesIO()
        img.save(out, "png")
        files.append(out.getvalue())
    box = np.array([60.0, 60, 130, 130])
    found = served(files, [box, box + np.array([70, 50, 70, 50])])
    np.testing.assert_allclose(
        found["landmarks"][1] - found["landmarks"][0], [[70, 50]] * 98, atol=0.05
    )
    np.testing.assert_allclose(found["covariance"][1], found["covariance"][0], rtol=1e-2)


def _files_that_fail():
    """Files that are no whole JPEG or PNG, by what is wrong with them."""
    jpeg, png = encoded(smooth(), "JPEG"), encoded(smooth(), "PNG")
    scan = jpeg.find(b"\xff\xda")
    # TensorFlow decodes 16 bits, and a scan repeated a thousand times.
    hostile = {
        name: data
        for name, (data, _) in hostile_images().items()
        if name not in ("16_bits.png", "many_scans.jpg")
    }
    return hostile | {
        "animated.gif": encoded(smooth(), "GIF", save_all=True, append_images=[smooth(seed=1)]),
        "pixels_crc.png": with_field(png, -30, ">I", 12345),
        "no_end.jpg": jpeg[:-2],
        "tables.jpg": with_field(jpeg, jpeg.find(b"\xff\xc4") + 2, ">H", 65_000),
        "components.jpg": with_field(jpeg, scan + 4, ">B", 200),
        "cut_in_the_scan.jpg": jpeg[: scan + 300] + b"\xff\xd9"[:1],
    }


def test_bad_rows_do_not_fail_their_neighbours(picture, served):
    bad = _files_that_fail()
    boxes = [[10, 10, 5, 20], [np.nan, 0, 1, 1], [-500, -500, -400, -400], [0, 0, np.inf, 9]]
    files = [*bad.values(), *[picture] * (len(boxes) + 1)]
    rows = [[0.0] * 4 for _ in bad] + boxes + [[0.0] * 4]
    for signature in signatures.IMAGE_SIGNATURES:
        found = served(files, rows, signature)
        accepted = dict(zip([*bad, *map(str, boxes)], found["valid"], strict=False))
        assert not any(accepted.values()), [name for name, valid in accepted.items() if valid]
        assert found["valid"][-1]
        for name in ("landmarks", "covariance", "precision_factor"):
            assert np.isfinite(found[name]).all() and np.abs(found[name][:-1]).max() == 0
        alone = served([picture], np.zeros((1, 4)), signature)
        np.testing.assert_allclose(found["landmarks"][-1], alone["landmarks"][0], atol=1e-3)


def test_wrong_bytes_in_a_jpeg_never_fail_the_request(picture, served):
    """Most still decode, as far as they go; which do is the decoder's business."""
    rng = np.random.default_rng(0)
    files = [picture]
    for _ in range(100):
        damaged = bytearray(picture)
        for place in rng.integers(2, len(picture), 8):
            damaged[place] = rng.integers(256)
        files.append(bytes(damaged))
    found = served(files, np.zeros((len(files), 4)))
    assert found["valid"][0] and 0 < found["valid"].sum() < len(files)
    assert all(np.isfinite(value).all() for value in found.values())


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("I;16", "PNG")],
)
def test_other_kinds_of_pixels(mode, kind, served):
    """A grey picture gives the same positions in every way to store it, but for what JPEG loses."""
    grey = smooth().convert("L")
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(grey, np.uint16) * 257)
    else:
        stored = grey.convert("P") if mode == "P" else grey.convert("RGB").convert(mode)
    files = [encoded(stored, kind), encoded(grey.convert("RGB"), "PNG")]
    found = served(files, np.zeros((2, 4)))
    assert found["valid"].all()
    deviation = np.sqrt(np.trace(found["covariance"][1], axis1=1, axis2=2) / 2).min()
    distance = np.linalg.norm(found["landmarks"][0] - found["landmarks"][1], axis=-1).max()
    assert distance < (0.3 * deviation if kind == "JPEG" else 1e-3)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_more_rows_than_a_server_has_memory_for_are_refused(model, signature):
    count = signatures.MAX_ROWS + 1
    rows = {
        "image_bytes": np.array([b""] * count, object),
        "box": np.zeros((count, 4), np.float32),
        "image": np.zeros((count, 32, 32, 3), np.uint8),
        "query": np.array([b""] * count, object),
    }
    names = model.input_types(signature)
    with pytest.raises(Exception, match="at most 256 images in a request"):
        model.run(signature, {name: rows[name] for name in names})


@pytest.mark.parametrize("signature", SIGNATURES)
def test_other_shapes_are_refused_by_the_graph_itself(model, picture, signature):
    """TensorFlow Serving compares them with nothing: grey crops and small ones would get landmarks."""
    boxes, files = np.zeros((2, 4), np.float32), np.array([picture] * 2, object)
    crops, queries = np.zeros((2, 32, 32, 3), np.uint8), np.array([b"", b"?"], object)
    if signature == "tensor":
        right = {"image": crops}
        resized = [np.resize(crops, (2, *side)) for side in ((31, 31, 3), (60, 60, 3), (32, 32, 1))]
        wrong = [{"image": image} for image in (*resized, crops[0], crops[..., None], crops[:, 0])]
    elif signature == "metadata":
        right = {"query": queries}
        wrong = [{"query": queries[:, None]}, {"query": queries[0:1].reshape(())}]
    else:
        right = {"box": boxes, "image_bytes": files}
        columns = [boxes[:, :3], np.zeros((2, 5), np.float32), boxes[0], boxes[:, None], boxes[:1]]
        wrong = [{"box": box, "image_bytes": files} for box in columns]
        wrong += [{"box": boxes, "image_bytes": each} for each in (files[:, None], files[:1])]
    model.run(signature, right)
    for inputs in wrong:
        with pytest.raises(RequestError):
            model.run(signature, inputs)
