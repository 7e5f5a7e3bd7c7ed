"""The report's photographs: labels beside predictions with their ellipses, as SVG over a JPEG."""

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pybase64
import tensorflow as tf
from PIL import Image

from tfhuber.drawing import ellipses
from tfhuber.evaluation.examples import Crop, View
from tfhuber.geometry import projective
from tfhuber.model.predictor import Predictor

__all__ = ["Chosen", "choose", "figure", "shapes"]

SIDE = 440  # pixels of a photograph in the page
_EACH = 4  # photographs of a kind


@dataclass(frozen=True)
class Chosen:
    """A photograph to be shown.

    Attributes:
      crop: its pixels, labels and predictions.
      name: its id.
      error: its mean error in words.
      distance: [K] errors in the photograph's own pixels.
      radius: [K] lengths of the labels' whitened errors.
      probability: [K] of the ellipse through the label.
    """

    crop: Crop
    name: str
    error: str
    distance: np.ndarray
    radius: np.ndarray
    probability: np.ndarray


def choose(error: np.ndarray, radius: np.ndarray) -> dict[str, list[int]]:
    """Return the indices of the examples to show, by what they are an example of.

    Args:
      error: [N] mean errors; NaN for an example that doesn't count.
      radius: [N, K] lengths of whitened errors; NaN where unlabelled.

    Returns:
      `best`, `median` and `worst` by error, and `most surprising`: the largest radius of a label.
    """
    order = np.argsort(error, kind="stable")[: np.isfinite(error).sum()]
    middle = max(0, (len(order) - _EACH) // 2)
    largest = np.where(np.isnan(radius), -np.inf, radius).max(axis=1)
    surprise = np.argsort(-largest, kind="stable")
    picks = {
        "best": order[:_EACH],
        "median": order[middle : middle + _EACH],
        "worst": order[::-1][:_EACH],
        "most surprising": surprise[np.isfinite(largest[surprise])][:_EACH],
    }
    return {kind: [int(i) for i in chosen] for kind, chosen in picks.items()}


def figure(predictor: Predictor, chosen: Chosen) -> str:
    """Return a photograph as a `<details>` element, which shows it large where it is opened."""
    names = predictor.landmark_set.names
    labelled = np.flatnonzero(np.isfinite(chosen.crop.truth).all(axis=1))
    rows = []
    for k in sorted(labelled, key=lambda k: -chosen.radius[k])[:5]:
        cells = (
            html.escape(names[k]),
            f"{chosen.distance[k]:.1f} px",
            f"radius {chosen.radius[k]:.2f}",
            f"{100 * chosen.probability[k]:.1f} % ellipse",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return (
        f'<details class="photograph"><summary>{_drawn(predictor, chosen, names)}'
        f"<span>{html.escape(chosen.name)}<br>{html.escape(chosen.error)}</span></summary>"
        f"<p>Labels farthest out:</p><table>{''.join(rows)}</table></details>"
    )


def shapes(view: View, points: np.ndarray, edges: Sequence[tuple[int, int]], name: str) -> str:
    """Return a photograph with shapes [n, K, 2], in original pixels, as a `<figure>` element."""
    here = projective.apply_map(view.from_original, tf.constant(points, tf.float32)).numpy() + 0.5
    side = len(view.image)
    if edges:
        paths = ["".join(_line(each[a], each[b]) for a, b in edges) for each in here]
    else:
        paths = ["".join(_line(point, point) for point in each) for each in here]
    lines = "".join(f'<path class="shape" d="{path}"/>' for path in paths)
    return (
        f'<figure class="photograph"><svg viewBox="0 0 {side} {side}" role="img">'
        f'<image width="{side}" height="{side}" href="data:image/jpeg;base64,{_jpeg(view.image)}"/>'
        f"{lines}</svg><figcaption>{html.escape(name)}</figcaption></figure>"
    )


def _line(start: np.ndarray, end: np.ndarray) -> str:
    return f"M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} {end[1]:.1f}"


def _drawn(predictor: Predictor, chosen: Chosen, names: Sequence[str]) -> str:
    """Return the photograph with its marks as an `<svg>` element."""
    crop, options = chosen.crop, predictor.options
    side = len(crop.image)
    scale = ellipses.radius_for(0.9, options.family, options.delta)
    marks = [_mark(crop, k, scale, f"{names[k]}: {_said(chosen, k)}") for k in range(len(names))]
    return (
        f'<svg viewBox="0 0 {side} {side}" role="img"><image width="{side}" height="{side}" '
        f'href="data:image/jpeg;base64,{_jpeg(crop.image)}"/>{"".join(marks)}</svg>'
    )


def _mark(crop: Crop, k: int, scale: float, title: str) -> str:
    """Return a landmark's ellipse, its position, and its label with a line between."""
    values, vectors = np.linalg.eigh(crop.covariance[k].astype(np.float64))
    short, long = scale * np.sqrt(np.maximum(values, 0))
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    # A pixel's centre has whole coordinates; an SVG's are those of its corner.
    x, y = crop.landmarks[k] + 0.5
    drawn = (
        f'<g><title>{html.escape(title)}</title><ellipse rx="{long:.1f}" ry="{short:.1f}" '
        f'transform="translate({x:.1f} {y:.1f}) rotate({angle:.0f})"/>'
    )
    if np.isfinite(crop.truth[k]).all():
        u, v = crop.truth[k] + 0.5
        drawn += (
            f'<path d="M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}"/>'
            f'<rect x="{u - 1.8:.1f}" y="{v - 1.8:.1f}" width="3.6" height="3.6"/>'
        )
    return f'{drawn}<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8"/></g>'


def _said(chosen: Chosen, k: int) -> str:
    if not np.isfinite(chosen.crop.truth[k]).all():
        return "no label"
    return f"{chosen.distance[k]:.1f} px, {100 * chosen.probability[k]:.1f} % ellipse"


def _jpeg(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=82)
    return pybase64.b64encode(file.getvalue()).decode()
