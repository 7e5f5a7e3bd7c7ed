"""The part of a frame that is sent: less than the whole, and all the same to the model."""

import numpy as np
import pytest
import tensorflow as tf

from serving.client.batches import predict_in_batches
from serving.client.sources import VideoFrame
from tfhuber.geometry.box_square import SQUARE_RULES
from tfhuber.saved_model import decoding

av = pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")

SIZE = (330, 250)  # no multiple of a JPEG's blocks


def frame_of(box, size=SIZE) -> VideoFrame:
    """A frame with something to see everywhere, in colours."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (size[1] // 5 + 1, size[0] // 5 + 1, 3), np.uint8)
    pixels = coarse.repeat(5, 0).repeat(5, 1)[: size[1], : size[0]]
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    box = None if box is None else np.array(box, float)
    return VideoFrame("clip.mp4", 0, 0.0, box, size, 0, None, frame)


def network_crop(frame, square, sent):
    """What a network for 64 pixels gets of a frame, and where each of its corners lies in the frame."""
    data, corner = frame.file(sent)
    image, decoded = decoding.decode(tf.constant(data))
    box = tf.constant(frame.box - (*corner, *corner), tf.float32)
    crop, h, usable = decoding.network_crop(image, box, 64, square)
    assert decoded
    inverse = np.linalg.inv(h.numpy().astype(float))
    corners = np.array([[0, 0, 1], [63, 63, 1]]) @ inverse.T
    return crop.numpy(), corners[:, :2] + corner, bool(usable), len(data)


BOXES = {
    "inside": (120, 90, 190, 170),
    "at odd places": (100.3, 77.7, 151.9, 160.2),
    "small": (200, 100, 203, 104),
    "beyond the left": (-40, 60, 30, 110),
    "beyond the corner": (280.5, 210.5, 380, 300),
    "as large as the frame": (0, 0, 329, 249),
    "larger than the frame": (-200, -100, 600, 400),
    "barely inside": (-50, -50, 0.2, 0.3),
}


@pytest.mark.parametrize("square", SQUARE_RULES)
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_the_network_gets_the_same_pixels(box, square):
    frame = frame_of(box)
    crop, corners, usable, bytes_sent = network_crop(frame, square, square)
    wanted, corners_wanted, usable_too, bytes_of_all = network_crop(frame, square, None)
    assert usable and usable_too and bytes_sent <= bytes_of_all
    np.testing.assert_allclose(corners, corners_wanted, atol=1e-3)
    # Where a pixel is taken from is rounded to another float32 a thousandth of a pixel away.
    assert np.abs(crop - wanted).max() < 0.3


def test_a_part_is_all_that_is_sent():
    data, (x, y) = frame_of((120, 90, 190, 170)).file("longest")
    part = tf.io.decode_jpeg(data)
    assert (x, y) == (96, 80) and part.shape == (96, 112, 3)
    whole = tf.io.decode_jpeg(frame_of((120, 90, 190, 170)).file()[0])
    inner = slice(2, -2)
    assert np.array_equal(part[inner, inner], whole[y : y + 96, x : x + 112][inner, inner])


@pytest.mark.parametrize(
    ("box", "square"),
    [(None, "diagonal"), ((120, 90, 190, 170), None), ((-90, -90, -50, -50), "longest")],
    ids=["no box", "no rule", "beside the frame"],
)
def test_otherwise_all_of_it_is_sent(box, square):
    data, corner = frame_of(box).file(square)
    assert corner == (0, 0) and tf.io.decode_jpeg(data).shape == (250, 330, 3)


@pytest.mark.parametrize("box", [(1e300, 0, 1.5e300, 1e300), (-1e300, -1e300, 1e300, 1e300)])
def test_absurd_boxes_reach_the_server(box):
    data, corner = frame_of(box).file("diagonal")
    assert corner == (0, 0) and tf.io.decode_jpeg(data).shape == (250, 330, 3)


def test_answers_are_in_pixels_of_the_whole_frame():
    """A client that finds its landmarks at the corners of the box that it is given."""

    class Corners:
        def predict(self, images, boxes, signature):
            shapes.extend(tf.io.decode_jpeg(image).shape[:2] for image in images)
            landmarks = np.asarray(boxes, np.float32).reshape(-1, 2, 2)
            covariance = np.zeros((len(boxes), 2, 2, 2), np.float32)
            valid = np.ones(len(boxes), bool)
            return {"landmarks": landmarks, "covariance": covariance, "valid": valid}

    shapes: list[tuple[int, int]] = []
    frames = [
        frame_of(box) for box in ((120, 90, 190, 170), (10, 20, 30, 40), (250, 200, 320, 240))
    ]
    answers = list(predict_in_batches(Corners(), frames, square="diagonal", batch=2, parallel=1))
    for answer in answers:
        np.testing.assert_allclose(answer.landmarks.ravel(), answer.picture.box, atol=1e-4)
    assert len(shapes) == 3 and all(height < 250 and width < 330 for height, width in shapes)
