"""Overlays: landmarks with their uncertainty ellipses on a photograph, and sheets of such pictures.

Points, covariances and boxes are in the pixels of the image that is drawn on. Drawn with Matplotlib,
without TensorFlow, so that a client of the server can draw.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont, ImageOps

from tfhuber.console.files import Aside, blamed
from tfhuber.drawing import style
from tfhuber.drawing.ellipses import ellipse_points, radius_for, standard_deviation

__all__ = ["draw_overlay", "evaluation_sheet", "save_image"]

_COLOUR_MAP = LinearSegmentedColormap.from_list("certainty", style.COLOURS).with_extremes(
    bad=style.UNKNOWN
)


def draw_overlay(
    image: Image.Image,
    landmarks: ArrayLike,
    covariance: ArrayLike,
    *,
    edges: Iterable[tuple[int, int]] = (),
    probability: float = 0.9,
    family: str = "huber",
    delta: float = 1.0,
    box: Iterable[float] | None = None,
    truth: ArrayLike | None = None,
    min_side: int = 640,
    max_side: int = 1600,
    legend: bool = True,
) -> Image.Image:
    """Return a copy of the image with its landmarks and the ellipses that hold each with `probability`.

    Colours tell the standard deviation relative to the extent of the landmarks, from teal (certain)
    to red (uncertain). The picture is enlarged until its shorter side is `min_side`, but its longer
    side is at most `max_side`. A landmark that is not finite or far outside of the image is left out;
    one whose covariance is not finite is a grey dot without an ellipse.

    Args:
      image: in any mode.
      landmarks: [K, 2] points in pixels of `image`, as everything below.
      covariance: [K, 2, 2] covariances of the landmarks.
      edges: pairs of landmarks that are joined by a line.
      probability: what each ellipse holds, in [0, 1).
      family: of the distributions that the covariances belong to, as for `ellipses.radius_for`.
      delta: the knee of their energy if they are Huber's.
      box: x0, y0, x1, y1 drawn as a frame, or None.
      truth: [K, 2] labels drawn as white crosses, or None; those that are not finite are left out.
      min_side: least length of the picture's shorter side, unless `max_side` forbids it.
      max_side: greatest length of the picture's longer side.
      legend: whether a corner explains ellipses, colours and crosses.

    Raises:
      ValueError: shapes don't fit, or `probability`, `family` or `delta` is out of range.
    """
    points, covariance = np.asarray(landmarks, np.float64), np.asarray(covariance, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"landmarks must be [landmarks, 2], got {points.shape}")
    if covariance.shape != (len(points), 2, 2):
        raise ValueError(f"covariance must be {(len(points), 2, 2)}, got {covariance.shape}")
    scale = radius_for(probability, family, delta)
    photo = _enlarged(image, min_side, max_side)
    figure, axes = _canvas(photo.size, image.size)
    crosses = None if truth is None else np.asarray(truth, np.float64)
    _draw_landmarks(axes, points, covariance, list(edges), scale, box, crosses)
    if legend:
        _draw_legend(figure, photo.size, probability, crosses is not None)
    return _composite(photo, figure)


def evaluation_sheet(
    rows: Mapping[str, Sequence[tuple[Image.Image, str]]], *, title: str = "", tile: int = 360
) -> Image.Image:
    """Return a sheet of pictures in labelled rows, each with its caption below.

    Args:
      rows: row label -> (picture, caption) pairs, from left to right.
      title: a headline, or nothing.
      tile: side in pixels of the square that each picture is fitted into.

    Raises:
      ValueError: there is no picture at all.
    """
    columns = max((len(pictures) for pictures in rows.values()), default=0)
    if not columns:
        raise ValueError("rows must hold at least one picture, got none")
    text, gap = max(11, tile // 22), max(6, tile // 30)
    left, head = 2 * text + gap, (3 * text if title else 0) + gap
    step_x, step_y = tile + gap, tile + 2 * text + gap
    sheet = Image.new("RGB", (left + columns * step_x, head + len(rows) * step_y), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((left, head / 2), title, "#1d2733", _font(1.5 * text, bold=True), anchor="lm")
    for row, (label, pictures) in enumerate(rows.items()):
        y = head + row * step_y
        # Labels are rotated by 90 degrees.
        banner = Image.new("RGB", (tile, 2 * text), "white")
        ImageDraw.Draw(banner).text(
            (tile / 2, text), label, "#1d2733", _font(1.2 * text, bold=True), anchor="mm"
        )
        sheet.paste(banner.rotate(90, expand=True), (gap // 2, y))
        for column, (picture, caption) in enumerate(pictures):
            x = left + column * step_x
            fitted = ImageOps.pad(picture.convert("RGB"), (tile, tile), color="#eef1f4")
            sheet.paste(fitted, (x, y))
            draw.text((x + 2, y + tile + text), caption, "#4a5563", _font(text), anchor="lm")
    return sheet


def save_image(image: Image.Image, path: str | Path) -> None:
    """Write a picture as PNG or JPEG, after the path's suffix; whole or not at all.

    Its directory is created if need be.

    Raises:
      ValueError: the suffix is none of .png, .jpg and .jpeg.
      OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in style.SUFFIXES:
        raise ValueError(f"a picture's name must end in .png, .jpg or .jpeg, got {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    data = io.BytesIO()  # Pillow would not notice a full disk
    image.convert("RGB").save(data, kind, quality=92)
    with Aside(path) as aside, blamed(path):
        aside.path.write_bytes(data.getvalue())


def _enlarged(image: Image.Image, min_side: int, max_side: int) -> Image.Image:
    factor = min(max(1.0, min_side / min(image.size)), max_side / max(image.size))
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _within(points: np.ndarray, reach: float) -> np.ndarray:
    """Return the points, with NaN for those that are not finite or have a coordinate of `reach` or more."""
    return np.where((np.abs(points) < reach).all(axis=1, keepdims=True), points, np.nan)


def _colours(relative_deviation: np.ndarray) -> np.ndarray:
    """Return RGBA [K, 4], logarithmic in the deviation; grey where that is NaN."""
    position = np.log(np.maximum(relative_deviation, style.CERTAIN) / style.CERTAIN)
    return _COLOUR_MAP(np.ma.masked_invalid(position / math.log(style.UNCERTAIN / style.CERTAIN)))


def _canvas(size: tuple[int, int], image_size: tuple[int, int]) -> tuple[Figure, Axes]:
    """Return a transparent figure of `size` pixels, one point each, with axes in the image's pixels."""
    width, height = image_size
    figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72, facecolor="none")
    axes = figure.add_axes(
        (0, 0, 1, 1), xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), autoscale_on=False
    )
    axes.set_axis_off()
    return figure, axes


def _composite(photo: Image.Image, figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    layer = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    return Image.alpha_composite(photo.convert("RGBA"), layer).convert("RGB")


def _draw_landmarks(
    axes: Axes,
    points: np.ndarray,
    covariance: np.ndarray,
    edges: Sequence[tuple[int, int]],
    scale: float,
    box: Iterable[float] | None,
    truth: np.ndarray | None,
) -> None:
    """Draw box, edges, ellipses of `scale` standard deviations, landmarks and labels, in this order."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    image_size = right - left, bottom - top
    # Points and ellipses far outside of the picture would overflow the rasteriser.
    reach = 2 * max(image_size)
    points = _within(points, reach)
    shown = np.isfinite(points).all(axis=1)
    known = shown & np.isfinite(covariance).all(axis=(1, 2))
    deviation = np.full(len(points), np.nan)
    deviation[known] = standard_deviation(covariance[known])
    extent = style.extent_of(points[shown], image_size)
    colours = _colours(deviation / extent)
    enlargement = round(axes.figure.bbox.width) / image_size[0]
    pen = style.pen_width(enlargement * style.spacing_of(extent, len(points)))
    if box is not None:
        _draw_box(axes, box, pen)
    _draw_edges(axes, [points[[i, j]] for i, j in edges if shown[i] and shown[j]], pen)
    # The large ellipses first, so that the small ones lie on top.
    order = [k for k in np.argsort(-deviation) if known[k]]
    longest = scale * math.sqrt(2) * deviation
    outlines = [
        ellipse_points(points[k], covariance[k], scale * min(1.0, reach / max(longest[k], 1e-9)))
        for k in order
    ]
    _draw_ellipses(axes, outlines, colours[order], pen)
    dots: dict[str, Any] = {"s": (4.6 * pen) ** 2, "linewidths": 0.6 * pen, "edgecolors": "white"}
    x, y = points[shown].T
    axes.scatter(x, y, c=colours[shown], **dots)
    if truth is not None:
        crosses: dict[str, Any] = {"s": (5 * pen) ** 2, "linewidths": 1.2 * pen, "marker": "x"}
        x, y = _within(truth, reach).T
        axes.scatter(x, y, c="white", **crosses)


def _draw_box(axes: Axes, box: Iterable[float], pen: float) -> None:
    x0, y0, x1, y1 = (float(value) for value in box)
    for colour, width in (((0, 0, 0, 0.35), 3.2), ((1, 1, 1, 0.9), 1.4)):
        frame = Rectangle(
            (x0, y0), x1 - x0, y1 - y0, fill=False, color=colour, linewidth=width * pen
        )
        axes.add_patch(frame)


def _draw_edges(axes: Axes, lines: list[np.ndarray], pen: float) -> None:
    axes.add_collection(LineCollection(lines, colors=[(1, 1, 1, 0.55)], linewidths=1.1 * pen))


def _draw_ellipses(axes: Axes, outlines: list[np.ndarray], colours: np.ndarray, pen: float) -> None:
    # Many ellipses overlap: fainter fills keep the photograph visible.
    fills = colours * (1, 1, 1, np.clip(4 / max(len(outlines), 1), 0.08, 0.22))
    axes.add_collection(
        PolyCollection(outlines, facecolors=fills, edgecolors=colours, linewidths=1.2 * pen)
    )


def _draw_legend(
    figure: Figure, size: tuple[int, int], probability: float, with_truth: bool
) -> None:
    """Draw a panel in the lower left corner: what an ellipse holds, what colours and crosses mean."""
    unit = min(size) / 640 * 13
    width, height = 13 * unit, (5.6 if with_truth else 4.2) * unit
    panel = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(0, size[1]), autoscale_on=False)
    panel.set_axis_off()
    panel.add_patch(
        FancyBboxPatch(
            (1.2 * unit, 1.2 * unit),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={0.6 * unit}",
            facecolor=(0.06, 0.09, 0.13, 0.62),
            edgecolor="none",
        )
    )
    left, right, low = 2 * unit, 0.4 * unit + width, 1.2 * unit
    ramp = _colours(np.geomspace(style.CERTAIN, style.UNCERTAIN, 256))[None]
    panel.imshow(ramp, extent=(left, right, low + 1.9 * unit, low + 2.5 * unit), zorder=2)
    panel.set(xlim=(0, size[0]), ylim=(0, size[1]), aspect="auto")
    words: dict[str, Any] = {"color": "white", "fontsize": 0.85 * unit, "va": "center"}
    panel.text(left, low + 1.1 * unit, "certain", **words)
    panel.text(right, low + 1.1 * unit, "uncertain", ha="right", **words)
    words["fontsize"] = unit
    panel.text(left, low + 3.4 * unit, f"{100 * probability:g} % ellipses", **words)
    if with_truth:
        panel.scatter(left + 0.4 * unit, low + 4.8 * unit, (0.6 * unit) ** 2, "white", marker="x")
        panel.text(left + 1.3 * unit, low + 4.8 * unit, "label", **words)


def _font(size: float, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font that Matplotlib brings along, so that every machine draws the same."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / name), size)
