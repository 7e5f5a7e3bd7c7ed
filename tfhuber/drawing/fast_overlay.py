"""Overlays for many pictures, as of videos and folders: as `overlay`'s, but drawn with OpenCV.

98 landmarks on 640 x 480 pixels take a millisecond, where `overlay.draw_overlay`, which builds a
Matplotlib figure for each picture, takes 0.1 seconds.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from tfhuber.console.lazy import lazy_module
from tfhuber.drawing import style
from tfhuber.drawing.ellipses import radius_for, standard_deviation

__all__ = ["Painter"]

cv2 = lazy_module("cv2")  # OpenCV, from the extra `video`

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)

# OpenCV takes coordinates as integers, here in sixteenths of a pixel: with 4 bits of fraction.
_SHIFT = 4
_ONE_PIXEL = 2**_SHIFT


class Painter:
    """A pen for one model's landmarks; several threads may draw with it at once.

    Args:
      edges: pairs of landmarks that are joined by a line.
      probability: what each ellipse holds, in [0, 1).
      family: of the distributions, as for `ellipses.radius_for`.
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
        try:
            cv2.LINE_AA  # noqa: B018
        except ImportError:
            raise ValueError(
                "drawing on many pictures needs OpenCV: pip install opencv-python-headless"
            ) from None
        self._edges = np.array(list(edges), int).reshape(-1, 2)
        self._radius = radius_for(probability, family, delta)

    def paint(
        self,
        pixels: np.ndarray,
        landmarks: ArrayLike,
        covariance: ArrayLike,
        *,
        box: ArrayLike | None = None,
        scale: float = 1.0,
    ) -> None:
        """Draw on a picture, in place.

        Args:
          pixels: RGB [H, W, 3] uint8, whose rows may have gaps between them.
          landmarks: [K, 2] in pixels of an image of which the picture is `scale` times an enlargement.
            One that is not finite or far outside is left out.
          covariance: [K, 2, 2] in square pixels; a landmark where it is not finite is a grey dot.
          box: [4] x0, y0, x1, y1 drawn as a frame, or None.
          scale: pixels of the picture in a pixel of the landmarks.
        """
        points = scale * (np.asarray(landmarks, np.float64) + 0.5) - 0.5
        covariance = np.asarray(covariance, np.float64)
        reach = 2 * max(pixels.shape[:2])
        points, shown = _within(points, reach)
        known = shown & np.isfinite(covariance).all((1, 2))
        covariance = np.where(known[:, None, None], covariance, 0)
        deviation = np.where(known, scale * standard_deviation(covariance), np.nan)
        extent = style.extent_of(points[shown], pixels.shape[:2])
        spacing = style.spacing_of(extent, len(points))
        pen = style.pen_width(spacing)
        width = (
            1 if pen < 1.7 else 2
        )  # OpenCV draws smooth lines of these widths 1.3 and 3.5 pixels wide
        colours = _colours(deviation / extent)

        if box is not None:
            corners = scale * (np.asarray(box, np.float64).clip(-reach, reach) + 0.5) - 0.5
            self._draw_box(pixels, np.nan_to_num(corners), width)
        edges = self._edges[(self._edges < len(points)).all(1)]
        lines = points[edges[shown[edges].all(1)]]
        with self._translucent(pixels, lines, 0.55) as (layer, lines):
            cv2.polylines(layer, [*lines], False, _WHITE, width, cv2.LINE_AA, _SHIFT)
        # The large ellipses first, so that the small ones lie on top.
        order = np.argsort(-deviation)[: known.sum()]
        axes = self._radius * scale * _cholesky(covariance[order])
        self._draw_ellipses(pixels, points[order], axes, colours[order], spacing, width)
        self._draw_dots(pixels, points[shown], colours[shown], pen)

    def _draw_box(self, pixels: np.ndarray, corners: np.ndarray, width: int) -> None:
        x0, y0, x1, y1 = corners
        frame = np.array([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]])
        with self._translucent(pixels, frame, 0.35) as (layer, shadow):
            cv2.polylines(layer, [*shadow], True, _BLACK, 2 * width + 1, shift=_SHIFT)
        self._draw_outlines(pixels, frame, [_WHITE], width)

    def _draw_ellipses(
        self,
        pixels: np.ndarray,
        centres: np.ndarray,
        axes: np.ndarray,
        colours: np.ndarray,
        spacing: float,
        width: int,
    ) -> None:
        """Draw the images of the unit circle under `axes` [N, 2, 2] around `centres` [N, 2]."""
        # A huge ellipse is cut down to one that is still larger than the picture.
        reach = 2 * max(pixels.shape[:2])
        longest = np.maximum(np.abs(axes).max((1, 2), initial=0), 1e-9)
        axes = axes * np.minimum(1, reach / longest)[:, None, None]
        ellipses = centres[:, None] + _circle(min(longest.max(initial=0), reach)) @ axes.mT
        # Filled ones that overlap their neighbours would hide the picture.
        small = longest < spacing / 2
        with self._translucent(pixels, ellipses[small], 0.15) as (layer, small_ellipses):
            for ellipse, colour in zip(small_ellipses, colours[small], strict=True):
                cv2.fillPoly(layer, [ellipse], colour.tolist(), cv2.LINE_AA, _SHIFT)
        self._draw_outlines(pixels, ellipses, colours.tolist(), width)

    def _draw_dots(
        self, pixels: np.ndarray, points: np.ndarray, colours: np.ndarray, pen: float
    ) -> None:
        for dot, colour in zip(_fixed_point(points).tolist(), colours.tolist(), strict=True):
            for radius, fill in ((2.6 * pen, _WHITE), (2.0 * pen, colour)):
                radius = round(_ONE_PIXEL * (radius - 0.4))  # its smooth edge is half a pixel wide
                cv2.circle(pixels, dot, radius, fill, -1, cv2.LINE_AA, _SHIFT)

    def _draw_outlines(
        self, pixels: np.ndarray, polygons: np.ndarray, colours: Sequence, width: int
    ) -> None:
        """Draw closed lines through `polygons` [N, M, 2]."""
        for polygon, colour in zip(_fixed_point(polygons), colours, strict=True):
            cv2.polylines(pixels, [polygon], True, colour, width, cv2.LINE_AA, _SHIFT)

    @contextlib.contextmanager
    def _translucent(
        self, pixels: np.ndarray, shapes: np.ndarray, alpha: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield a copy of the part of the picture around `shapes` [N, M, 2], and the shapes in its pixels.

        What is drawn on the copy goes into the picture with the opacity `alpha`; where shapes overlap,
        no less shines through.
        """
        if not len(shapes):
            yield pixels[:0], _fixed_point(shapes)
            return
        size = pixels.shape[1::-1]
        x0, y0 = np.clip(np.floor(shapes.min((0, 1))).astype(int) - 4, 0, size)
        x1, y1 = np.clip(np.ceil(shapes.max((0, 1))).astype(int) + 5, 0, size)
        below = pixels[y0:y1, x0:x1]
        layer = below.copy()
        yield layer, _fixed_point(shapes - (x0, y0))
        if layer.size:
            below[...] = cv2.addWeighted(layer, alpha, below, 1 - alpha, 0)


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """Return coordinates as OpenCV takes them."""
    return np.round(_ONE_PIXEL * points).astype(np.int32)


def _circle(radius: float) -> np.ndarray:
    """Return points [M, 2] of the unit circle, enough that a circle of `radius` pixels looks round."""
    count = max(12, math.ceil(5.7 * math.sqrt(radius)))  # the polygon is off by 0.15 pixels
    angles = np.arange(count) * (2 * math.pi / count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _within(points: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the points, with 0 for those that are not finite or beyond `reach`; and which are neither."""
    shown = (np.abs(points) < reach).all(axis=1)
    return np.where(shown[:, None], points, 0), shown


def _cholesky(covariance: np.ndarray) -> np.ndarray:
    """Return the lower triangular L [N, 2, 2] with L L' = covariance; negative pivots count as 0."""
    xx, xy, yy = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    a = np.sqrt(np.maximum(xx, 0))
    b = np.divide(xy, a, out=np.zeros_like(a), where=a > 0)
    c = np.sqrt(np.maximum(yy - b * b, 0))
    return np.stack([np.stack([a, np.zeros_like(a)], -1), np.stack([b, c], -1)], -2)


def _colours(relative_deviation: np.ndarray) -> np.ndarray:
    """Return RGB [K, 3], 0 to 255, logarithmic in the deviation; grey where that is NaN."""
    ramp = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in style.COLOURS])
    position = np.log(np.maximum(relative_deviation, style.CERTAIN) / style.CERTAIN)
    position *= (len(ramp) - 1) / math.log(style.UNCERTAIN / style.CERTAIN)
    mixed = [np.interp(position, range(len(ramp)), channel) for channel in ramp.T]
    unknown = 255 * np.array(style.UNKNOWN[:3])
    return np.where(np.isnan(position)[:, None], unknown, np.stack(mixed, -1))
