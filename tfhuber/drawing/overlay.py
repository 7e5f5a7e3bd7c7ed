"""Overlays: landmarks with their uncertainty ellipses on a photograph, and sheets of such pictures.

Without TensorFlow, so that a client of the server can draw. Points, covariances and boxes are in the
pixels of the image that is drawn on.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from tfhuber.console.files import Aside, blamed

__all__ = [
    "FAMILIES",
    "draw_overlay",
    "ellipse_points",
    "evaluation_sheet",
    "radius_for",
    "save_image",
]

# Those of `radial`, which needs TensorFlow.
FAMILIES = ("huber", "gauss", "laplace", "charbonnier")

# From certain to uncertain, readable on skin, cloth and grass.
COLOURS = ("#16c7b4", "#86d65c", "#f8d43c", "#ff9232", "#f2304e")
UNKNOWN = (0.75, 0.75, 0.75, 1.0)
# Standard deviations, relative to the extent of the landmarks, at the two ends of the colours.
CERTAIN, UNCERTAIN = 0.004, 0.064

SUFFIXES = (".jpeg", ".jpg", ".png")


def radius_for(probability: float, family: str = "huber", delta: float = 1.0) -> float:
    """Scale of the ellipse that holds `probability` of a 2-D distribution, in standard deviations.

    With R the quantile of the radius, whose density is `r exp(-rho(r)) / I_1`, and the covariance
    `kappa inv(A A)`, that ellipse is {u: (u - mu)' inv(covariance) (u - mu) = R^2 / kappa}, and this
    is R / sqrt(kappa). In two dimensions both are closed forms.

    Args:
      probability: in [0, 1).
      family: "huber", "gauss", "laplace" or "charbonnier".
      delta: the knee of the Huber energy (eq. 2); the other families have none.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> round(radius_for(0.9), 4), round(radius_for(0.9, "gauss"), 4)
      (2.2362, 2.146)
    """
    if not 0 <= probability < 1:
        raise ValueError(f"probability must be in [0, 1), got {probability}")
    if not (delta > 0 and math.isfinite(delta)):
        raise ValueError(f"delta must be positive and finite, got {delta}")
    if family == "huber":
        quantile, variance = _huber_radius(probability, delta)
    elif family == "gauss":
        quantile, variance = math.sqrt(-2 * math.log1p(-probability)), 1.0
    elif family == "laplace":
        quantile, variance = _gamma_quantile(1 - probability), 3.0
    elif family == "charbonnier":  # s = sqrt(1 + r^2) has the tail (1 + s) exp(1 - s) / 2.
        s = _gamma_quantile(2 / math.e * (1 - probability))
        quantile, variance = math.sqrt(max(0.0, s * s - 1)), 3.5
    else:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    return quantile / math.sqrt(variance)


def ellipse_points(center, covariance, scale: float, n: int = 64) -> np.ndarray:
    """Points [n, 2] once around {u: (u - center)' inv(covariance) (u - center) = scale^2}, in their frame.

    Args:
      center: [2] point.
      covariance: [2, 2] symmetric; negative eigenvalues, which rounding may leave, count as 0.
      scale: standard deviations, such as `radius_for(0.9)`.
      n: number of points.
    """
    variances, axes = np.linalg.eigh(np.asarray(covariance, np.float64))
    angle = np.arange(n) * (2 * np.pi / n)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    semi_axes = scale * np.sqrt(np.maximum(variances, 0))
    return np.asarray(center, np.float64) + (circle * semi_axes) @ axes.T


def draw_overlay(
    image: Image.Image,
    landmarks,
    covariance,
    *,
    edges: Iterable[tuple[int, int]] = (),
    probability: float = 0.9,
    family: str = "huber",
    delta: float = 1.0,
    box=None,
    truth=None,
    min_side: int = 640,
    max_side: int = 1600,
    legend: bool = True,
) -> Image.Image:
    """A new picture of the image with landmarks and the ellipses that hold `probability` of their place.

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
      family: of the distributions that the covariances belong to, as for `radius_for`.
      delta: the knee of their energy if they are Huber's.
      box: x0, y0, x1, y1 drawn as a frame, or None.
      truth: [K, 2] labels drawn as white crosses, or None; those that are not finite are left out.
      min_side: least length of the picture's shorter side, unless `max_side` forbids it.
      max_side: greatest length of the picture's longer side.
      legend: whether a corner explains the signs.

    Raises:
      ValueError: if shapes don't fit, or `probability`, `family` or `delta` is out of range.
    """
    landmarks, covariance = np.asarray(landmarks, np.float64), np.asarray(covariance, np.float64)
    if landmarks.ndim != 2 or landmarks.shape[1] != 2:
        raise ValueError(f"landmarks must be [landmarks, 2], got {landmarks.shape}")
    if covariance.shape != (len(landmarks), 2, 2):
        raise ValueError(f"covariance must be {(len(landmarks), 2, 2)}, got {covariance.shape}")
    scale = radius_for(probability, family, delta)
    photo = _enlarged(image, min_side, max_side)
    # Points and ellipses far outside of the picture would overflow the rasteriser.
    reach = 2 * max(image.size)
    points = _within(landmarks, reach)
    shown = np.isfinite(points).all(axis=1)
    known = shown & np.isfinite(covariance).all(axis=(1, 2))

    deviation = np.full(len(points), np.nan)
    deviation[known] = np.sqrt(np.trace(covariance[known], axis1=1, axis2=2).clip(0) / 2)
    extent = math.hypot(*np.ptp(points[shown], axis=0)) if shown.any() else 0.0
    extent = extent or max(image.size)
    colours = _colours(deviation / extent)
    # Signs grow with the landmarks' spacing, not with the picture: they must not hide a small face.
    spacing = photo.width / image.width * extent / math.sqrt(max(1, len(points)))
    pen = float(np.clip(spacing / 55, 0.5, 2.5))

    figure, axes = _canvas(photo.size, image.size)
    if box is not None:
        _draw_box(axes, box, pen)
    _draw_edges(axes, [points[[i, j]] for i, j in edges if shown[i] and shown[j]], pen)
    # The large ellipses first, so that the small ones lie on top.
    order = [k for k in np.argsort(-deviation) if known[k]]
    semi_axis = scale * math.sqrt(2) * deviation
    outlines = [
        ellipse_points(points[k], covariance[k], scale * min(1.0, reach / max(semi_axis[k], 1e-9)))
        for k in order
    ]
    _draw_ellipses(axes, outlines, colours[order], pen)
    axes.scatter(
        *points[shown].T, (4.6 * pen) ** 2, colours[shown], linewidths=0.6 * pen, edgecolors="white"
    )
    if truth is not None:
        crosses = _within(np.asarray(truth, np.float64), reach)
        axes.scatter(*crosses.T, (5 * pen) ** 2, "white", marker="x", linewidths=1.2 * pen)
    if legend:
        _draw_legend(figure, photo.size, probability, truth is not None)
    return _composite(photo, figure)


def evaluation_sheet(
    rows: Mapping[str, Sequence[tuple[Image.Image, str]]], *, title: str = "", tile: int = 360
) -> Image.Image:
    """A sheet of pictures in labelled rows, each with its caption below.

    Args:
      rows: row label -> (picture, caption) pairs, from left to right.
      title: a headline, or nothing.
      tile: side in pixels of the square that each picture is fitted into.

    Raises:
      ValueError: if there is no picture at all.
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
        # Turned by 90 degrees, a label needs no more width than its height.
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
    """Writes a picture, whole or not at all, as PNG or JPEG after the path's suffix.

    Its directory is created if need be.

    Raises:
      ValueError: if the suffix is none of .png, .jpg and .jpeg.
      OSError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a picture's name must end in .png, .jpg or .jpeg, got {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    data = io.BytesIO()  # Pillow does not notice when a disk takes only a part
    image.convert("RGB").save(data, kind, quality=92)
    with Aside(path) as aside, blamed(path):
        aside.path.write_bytes(data.getvalue())


def _huber_radius(probability: float, delta: float) -> tuple[float, float]:
    """Quantile of x = delta r and half of E[x^2], so that a small delta divides nothing by 0."""
    square = delta * delta
    at_knee = math.exp(-square / 2)
    mass = square + at_knee  # delta^2 times the integral of r exp(-rho(r))
    moment = 2 * square**2 + at_knee * (square**2 + 6 * square + 6)  # delta^4 times that of r^3
    if probability * mass <= square * (1 - at_knee):
        quantile = delta * math.sqrt(-2 * math.log1p(-probability * mass / square))
    else:  # Beyond the knee lies exp(delta^2 / 2) (1 + x) exp(-x) of the mass.
        quantile = _gamma_quantile((1 - probability) * mass * at_knee)
    return quantile, moment / (2 * mass)


def _gamma_quantile(tail: float) -> float:
    """The x >= 0 where (1 + x) exp(-x), the tail of a gamma distribution of shape 2, is `tail`."""
    from scipy.special import (
        lambertw,
    )  # a tenth of a second that a client without pictures is spared

    return float(-1 - lambertw(-tail / math.e, k=-1).real) if tail < 1 else 0.0


def _enlarged(image: Image.Image, min_side: int, max_side: int) -> Image.Image:
    factor = min(max(1.0, min_side / min(image.size)), max_side / max(image.size))
    size = tuple(max(1, round(side * factor)) for side in image.size)
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _within(points: np.ndarray, reach: float) -> np.ndarray:
    """The points, with NaN for those that are not finite or have a coordinate of `reach` or more."""
    return np.where((np.abs(points) < reach).all(axis=1, keepdims=True), points, np.nan)


def _colours(relative_deviation: np.ndarray) -> np.ndarray:
    """RGBA [K, 4], logarithmic in the deviation; grey where that is NaN."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("certainty", COLOURS)
    scale = scale.with_extremes(bad=UNKNOWN)
    position = np.log(np.maximum(relative_deviation, CERTAIN) / CERTAIN)
    return scale(np.ma.masked_invalid(position / math.log(UNCERTAIN / CERTAIN)))


def _canvas(size: tuple[int, int], image_size: tuple[int, int]):
    """A transparent figure of `size` pixels, one point each, and axes in the pixels of the image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = image_size
    figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72, facecolor="none")
    FigureCanvasAgg(figure)
    axes = figure.add_axes(
        (0, 0, 1, 1), xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), autoscale_on=False
    )
    axes.set_axis_off()
    return figure, axes


def _composite(photo: Image.Image, figure) -> Image.Image:
    figure.canvas.draw()
    layer = Image.fromarray(np.asarray(figure.canvas.buffer_rgba()))
    return Image.alpha_composite(photo.convert("RGBA"), layer).convert("RGB")


def _draw_box(axes, box, pen: float) -> None:
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = (float(value) for value in box)
    for colour, width in (((0, 0, 0, 0.35), 3.2), ((1, 1, 1, 0.9), 1.4)):
        frame = Rectangle(
            (x0, y0), x1 - x0, y1 - y0, fill=False, color=colour, linewidth=width * pen
        )
        axes.add_patch(frame)


def _draw_edges(axes, lines: list[np.ndarray], pen: float) -> None:
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(lines, colors=[(1, 1, 1, 0.55)], linewidths=1.1 * pen))


def _draw_ellipses(axes, outlines: list[np.ndarray], colours: np.ndarray, pen: float) -> None:
    from matplotlib.collections import PolyCollection

    # Many ellipses overlap: fainter fills keep the photograph visible.
    fills = colours * (1, 1, 1, np.clip(4 / max(len(outlines), 1), 0.08, 0.22))
    axes.add_collection(
        PolyCollection(outlines, facecolors=fills, edgecolors=colours, linewidths=1.2 * pen)
    )


def _draw_legend(figure, size: tuple[int, int], probability: float, with_truth: bool) -> None:
    """A panel in the lower left corner: what an ellipse holds, and what the colours and crosses mean."""
    from matplotlib.patches import FancyBboxPatch

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
    ramp = _colours(np.geomspace(CERTAIN, UNCERTAIN, 256))[None]
    panel.imshow(ramp, extent=(left, right, low + 1.9 * unit, low + 2.5 * unit), zorder=2)
    panel.set(xlim=(0, size[0]), ylim=(0, size[1]), aspect="auto")
    words = {"color": "white", "fontsize": 0.85 * unit, "va": "center"}
    panel.text(left, low + 1.1 * unit, "certain", **words)
    panel.text(right, low + 1.1 * unit, "uncertain", ha="right", **words)
    words["fontsize"] = unit
    panel.text(left, low + 3.4 * unit, f"{100 * probability:g} % ellipses", **words)
    if with_truth:
        panel.scatter(left + 0.4 * unit, low + 4.8 * unit, (0.6 * unit) ** 2, "white", marker="x")
        panel.text(left + 1.3 * unit, low + 4.8 * unit, "label", **words)


def _font(size: float, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that Matplotlib brings along, so that every machine draws the same."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / name), size)
