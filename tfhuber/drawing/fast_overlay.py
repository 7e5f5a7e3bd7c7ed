"""Draws landmarks and their ellipses on many pictures quickly, for videos and folders.

The signs are those of `overlay.draw_overlay`. Where that builds a figure for each picture, which takes
0.1 seconds, this draws them with OpenCV: 98 landmarks on 640 x 480 pixels take a millisecond.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator

import numpy as np

from tfhuber.drawing.overlay import CERTAIN, COLOURS, UNCERTAIN, UNKNOWN, radius_for

__all__ = ["Painter"]

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)

# OpenCV draws at integers; these are sixteenths of a pixel.
_SHIFT = 4
_PARTS = 2**_SHIFT


class Painter:
    """Draws on pictures, from several threads at once if need be.

    Args:
      edges: pairs of landmarks that are joined by a line.
      probability: what each ellipse holds, in [0, 1).
      family: of the distributions, as for `overlay.radius_for`.
      delta: the knee of their energy if they are Huber's.

    Raises:
      ValueError: `probability`, `family` or `delta` is out of range, or OpenCV is not installed.

    Example:
      >>> painter = Painter([(0, 1)], probability=0.9)
      >>> pixels = np.zeros((48, 64, 3), np.uint8)
      >>> painter.paint(pixels, [[20, 20], [40, 25]], 4 * np.eye(2)[None].repeat(2, 0))
      >>> int(pixels[20, 20, 1])  # the green of a certain landmark
      199
    """

    def __init__(
        self,
        edges: Iterable[tuple[int, int]] = (),
        *,
        probability: float = 0.9,
        family: str = "huber",
        delta: float = 1.0,
    ):
        self._cv2 = _import_cv2()
        self._edges = np.array(list(edges), int).reshape(-1, 2)
        self._radius = radius_for(probability, family, delta)

    def paint(
        self, pixels: np.ndarray, landmarks, covariance, *, box=None, scale: float = 1.0
    ) -> None:
        """Draws on a picture, in place.

        Args:
          pixels: RGB [H, W, 3] uint8, whose rows may have gaps between them.
          landmarks: [K, 2] in pixels of an image of which the picture is `scale` times an enlargement.
            One that is not finite or far outside is left out.
          covariance: [K, 2, 2] in square pixels; a landmark where it is not finite is a grey dot.
          box: [4] x0, y0, x1, y1 drawn as a frame, or None.
          scale: pixels of the picture in a pixel of the landmarks.
        """
        landmarks = np.asarray(landmarks, np.float64)
        covariance = np.asarray(covariance, np.float64)
        reach = 2 * max(pixels.shape[:2])
        points, shown = _within(scale * (landmarks + 0.5) - 0.5, reach)
        known = shown & np.isfinite(covariance).all((1, 2))
        covariance = np.where(known[:, None, None], covariance, 0)
        deviation = scale * np.sqrt(np.trace(covariance, axis1=1, axis2=2).clip(0) / 2)
        deviation[~known] = np.nan
        extent = math.hypot(*np.ptp(points[shown], axis=0)) if shown.any() else 0.0
        extent = extent or max(pixels.shape[:2])
        spacing = extent / math.sqrt(max(1, len(points)))
        pen = float(np.clip(spacing / 55, 0.5, 2.5))
        width = 1 if pen < 1.7 else 2  # of smooth lines, which OpenCV makes 1.3 and 3.5 pixels wide
        colours = _colours(deviation / extent)

        if box is not None:
            corners = scale * (np.asarray(box, np.float64).clip(-reach, reach) + 0.5) - 0.5
            x0, y0, x1, y1 = np.nan_to_num(corners)
            frame = np.array([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]])
            with self._translucent(pixels, frame, 0.35) as (layer, shadow):
                self._cv2.polylines(layer, [*shadow], True, _BLACK, 2 * width + 1, shift=_SHIFT)
            self._draw_outlines(pixels, frame, [_WHITE], width)

        edges = self._edges[(self._edges < len(points)).all(1)]
        lines = points[edges[shown[edges].all(1)]]
        with self._translucent(pixels, lines, 0.55) as (layer, lines):
            self._cv2.polylines(layer, [*lines], False, _WHITE, width, self._cv2.LINE_AA, _SHIFT)

        # The large ellipses first, so that the small ones lie on top.
        order = np.argsort(-deviation)[: known.sum()]
        axes = self._radius * scale * _half(covariance[order])
        # A huge ellipse is cut down to one that is still larger than the picture.
        longest = np.maximum(np.abs(axes).max((1, 2), initial=0), 1e-9)
        axes *= np.minimum(1, reach / longest)[:, None, None]
        ellipses = points[order][:, None] + _circle(min(longest.max(initial=0), reach)) @ axes.mT
        # To fill those that overlap their neighbours hides the picture.
        small = longest < spacing / 2
        with self._translucent(pixels, ellipses[small], 0.15) as (layer, small_ellipses):
            for ellipse, colour in zip(small_ellipses, colours[order][small], strict=True):
                self._cv2.fillPoly(layer, [ellipse], colour.tolist(), self._cv2.LINE_AA, _SHIFT)
        self._draw_outlines(pixels, ellipses, colours[order].tolist(), width)

        dots = zip(_fixed(points[shown]).tolist(), colours[shown].tolist(), strict=True)
        for dot, colour in dots:
            for radius, fill in ((2.6 * pen, _WHITE), (2.0 * pen, colour)):
                radius = round(_PARTS * (radius - 0.4))  # its smooth edge is half a pixel wide
                self._cv2.circle(pixels, dot, radius, fill, -1, self._cv2.LINE_AA, _SHIFT)

    def _draw_outlines(self, pixels, polygons: np.ndarray, colours, width: int) -> None:
        """Closed lines through `polygons` [N, M, 2]."""
        for polygon, colour in zip(_fixed(polygons), colours, strict=True):
            self._cv2.polylines(pixels, [polygon], True, colour, width, self._cv2.LINE_AA, _SHIFT)

    @contextlib.contextmanager
    def _translucent(
        self, pixels: np.ndarray, shapes: np.ndarray, alpha: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A copy of what is around `shapes` [N, M, 2], and the shapes in it, to be drawn on.

        What is drawn counts by `alpha`; where shapes overlap, it does so once.
        """
        if not len(shapes):
            yield pixels[:0], _fixed(shapes)
            return
        size = pixels.shape[1::-1]
        x0, y0 = np.clip(np.floor(shapes.min((0, 1))).astype(int) - 4, 0, size)
        x1, y1 = np.clip(np.ceil(shapes.max((0, 1))).astype(int) + 5, 0, size)
        below = pixels[y0:y1, x0:x1]
        layer = below.copy()
        yield layer, _fixed(shapes - (x0, y0))
        if layer.size:
            below[...] = self._cv2.addWeighted(layer, alpha, below, 1 - alpha, 0)


def _import_cv2():
    try:
        import cv2
    except ImportError:
        raise ValueError(
            "drawing on many pictures needs OpenCV: pip install opencv-python-headless"
        ) from None
    return cv2


def _fixed(points: np.ndarray) -> np.ndarray:
    """Coordinates as OpenCV takes them."""
    return np.round(_PARTS * points).astype(np.int32)


def _circle(radius: float) -> np.ndarray:
    """Points [M, 2] of the unit circle, enough that a circle of `radius` pixels looks round."""
    count = max(12, math.ceil(5.7 * math.sqrt(radius)))  # the polygon is off by 0.15 pixels
    angles = np.arange(count) * (2 * math.pi / count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _within(points: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """The points, with 0 for those that are not finite or beyond `reach`, and which ones are neither."""
    shown = (np.abs(points) < reach).all(axis=1)
    return np.where(shown[:, None], points, 0), shown


def _half(covariance: np.ndarray) -> np.ndarray:
    """The lower triangular L [N, 2, 2] with L L' = covariance; what rounding made negative counts as 0."""
    xx, xy, yy = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    a = np.sqrt(np.maximum(xx, 0))
    b = np.divide(xy, a, out=np.zeros_like(a), where=a > 0)
    c = np.sqrt(np.maximum(yy - b * b, 0))
    return np.stack([np.stack([a, np.zeros_like(a)], -1), np.stack([b, c], -1)], -2)


def _colours(relative_deviation: np.ndarray) -> np.ndarray:
    """RGB [K, 3], 0 to 255, logarithmic in the deviation; grey where that is NaN."""
    ramp = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS])
    position = np.log(np.maximum(relative_deviation, CERTAIN) / CERTAIN)
    position *= (len(ramp) - 1) / math.log(UNCERTAIN / CERTAIN)
    mixed = [np.interp(position, range(len(ramp)), channel) for channel in ramp.T]
    return np.where(np.isnan(position)[:, None], 255 * np.array(UNKNOWN[:3]), np.stack(mixed, -1))
