"""Drawn faces the way 300W-LP stores them: 68 landmarks, one face a picture, and turned poses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.sample.faces import Face

__all__ = ["FROM_WFLW", "FaceView", "face_views"]

SIZE = 450
FACE_SHARE = 0.4  # of the picture's side that the larger side of the face's box takes
# Poses after the photograph itself are made by narrowing it, as turning a flat picture would.
WIDTHS = (1.0, 0.7)

# Where WFLW's 98 points have 300W's 68: every other point of the jaw, the brows' upper edges, and
# the eyes without the middles of their lids and without the pupils.
FROM_WFLW = (
    *range(0, 33, 2),
    *range(33, 38),
    *range(42, 47),
    *range(51, 60),
    *(60, 61, 63, 64, 65, 67),
    *(68, 69, 71, 72, 73, 75),
    *range(76, 96),
)


@dataclass(frozen=True)
class FaceView:
    """One pose of a drawn face, in pixels of its own picture.

    Attributes:
      suffix: end of its file's name: the face's number in the drawing, from 1, and the pose's.
      is_photograph: whether this is pose 0.
      landmarks: [68, 2] exact positions.
      covariance: [68, 2, 2] of the label noise, pixels^2.
    """

    suffix: str
    is_photograph: bool
    landmarks: np.ndarray
    covariance: np.ndarray


def face_views(
    image: Image.Image, faces: Sequence[Face], labels: list[np.ndarray]
) -> Iterator[tuple[Image.Image, FaceView, np.ndarray]]:
    """Yield a picture of 450 x 450 pixels, the view and its labels [68, 2] for each face and pose.

    Args:
      image: the drawing.
      faces: who is on it.
      labels: the noisy labels [98, 2] of each face, in the drawing's pixels.
    """
    for number, (face, points) in enumerate(zip(faces, labels, strict=True), start=1):
        box = np.array(face.box, np.float64)
        centre = (box[:2] + box[2:]) / 2
        scale = FACE_SHARE * SIZE / (box[2:] - box[:2]).max()
        for pose, width in enumerate(WIDTHS):
            scales = scale * np.array([width, 1.0])
            offset = (SIZE - 1) / 2 - scales * centre
            view = FaceView(
                f"{number}_{pose}",
                pose == 0,
                scales * face.landmarks[list(FROM_WFLW)] + offset,
                np.outer(scales, scales) * face.covariance[list(FROM_WFLW)],
            )
            yield _seen(image, scales, offset), view, scales * points[list(FROM_WFLW)] + offset


def _seen(image: Image.Image, scales: np.ndarray, offset: np.ndarray) -> Image.Image:
    """Return the picture in which pixel u of `image` is at `scales * u + offset`; its border continues."""
    margin = SIZE
    edges = ((margin, margin), (margin, margin), (0, 0))
    padded = Image.fromarray(np.pad(np.asarray(image), edges, "edge"))
    offset = offset - scales * margin
    # Pillow's map goes back, between coordinates in which a pixel's centre is at a half.
    (a, e), (c, f) = 1 / scales, 0.5 - (offset + 0.5) / scales
    coefficients = (a, 0.0, c, 0.0, e, f)
    return padded.transform(
        (SIZE, SIZE), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
