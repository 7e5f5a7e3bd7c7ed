"""Questions to whole shapes, such as the distance between two landmarks: values with standard deviations.

A value f(p) of some landmarks' places p has, to first order, the variance J C J' with J the exact
derivative of f and C the covariance of these places: of all of them together where the model says how
landmarks go together, else of each by itself.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Measure", "Questions", "parse_measure"]

_Found = tuple[np.ndarray, np.ndarray]  # A value [...] and its derivative [..., n, 2] by n places.


@dataclass(frozen=True)
class Measure:
    """A question to a shape.

    Attributes:
      name: of the answer.
      kind: "distance" of two landmarks, in pixels; "angle" at the second of three, in degrees from 0 to
        180; "ratio" of the distance of the first two to that of the last two, such as an eye's opening.
      points: the numbers of the landmarks.
    """

    name: str
    kind: str
    points: tuple[int, ...]

    def of(
        self, places: np.ndarray, covariance: np.ndarray, correlation: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the values [...] and their standard deviations [...]; NaN where a landmark is not known.

        >>> shape, small = np.array([[0.0, 0.0], [3.0, 4.0]]), np.tile(0.5 * np.eye(2), (2, 1, 1))
        >>> value, deviation = Measure("reach", "distance", (0, 1)).of(shape, small)
        >>> print(value, deviation)
        5.0 1.0

        Args:
          places: [..., K, 2] in pixels.
          covariance: [..., K, 2, 2] in square pixels.
          correlation: [2K, 2K] of the whitened errors of (x0, y0, x1, y1, ...), as in
            `calibration.dependence.correlation`; None for landmarks that err independently.
        """
        rows, member = np.unique(self.points, return_inverse=True)
        chosen = np.asarray(places, np.float64)[..., rows, :]
        shapes = np.asarray(covariance, np.float64)[..., rows, :, :]
        finite = np.isfinite(chosen).all(-1) & np.isfinite(shapes).all((-2, -1))
        known = np.asarray(finite.all(-1))
        chosen = np.where(known[..., None, None], chosen, np.arange(2 * len(rows)).reshape(-1, 2))
        shapes = np.where(known[..., None, None, None], shapes, np.eye(2))
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # landmarks in one place have no direction
            value, by_each = _KINDS[self.kind][1](chosen[..., member, :])
            # A landmark may be asked for twice.
            slope = np.einsum(
                "rn,...nj->...rj", np.equal.outer(rows, np.array(self.points)), by_each
            )
            whitened = np.einsum("...nij,...nj->...ni", _root(shapes), slope)
        if correlation is None:
            variance = np.sum(whitened**2, axis=(-2, -1))
        else:
            index = np.ravel([[2 * k, 2 * k + 1] for k in rows])
            flat = whitened.reshape(*whitened.shape[:-2], -1)
            between = np.asarray(correlation, np.float64)[np.ix_(index, index)]
            variance = np.einsum("...i,ij,...j->...", flat, between, flat)
        known &= np.isfinite(value) & np.isfinite(variance)
        deviation = np.sqrt(np.where(known, np.maximum(variance, 0), np.nan))
        return np.where(known, value, np.nan), deviation


@dataclass(frozen=True)
class Questions:
    """What is asked of each shape of a track.

    Attributes:
      measures: each with a name of its own.
      correlation: as in `Measure.of`.
    """

    measures: tuple[Measure, ...] = ()
    correlation: np.ndarray | None = None

    def answers(self, places: np.ndarray, covariance: np.ndarray) -> dict[str, dict[str, float]]:
        """Return by a measure's name the `value` and its standard `deviation`, of [K, 2] and [K, 2, 2]."""
        found = {}
        for measure in self.measures:
            value, deviation = measure.of(places, covariance, self.correlation)
            found[measure.name] = {"value": float(value), "deviation": float(deviation)}
        return found


def parse_measure(text: str, names: Sequence[str]) -> Measure:
    """Return the measure that `text`, such as "eye=distance(60,64)", asks for.

    Args:
      text: NAME=KIND(POINT,...), with the landmarks' numbers from 0 or names.
      names: [K] the landmarks'.

    Raises:
      ValueError: there is no such kind or landmark, or another number of landmarks is needed.
    """
    found = re.fullmatch(r"\s*([^=(),]+?)\s*=\s*(\w+)\s*\(([^()]*)\)\s*", text)
    if not found:
        raise ValueError(f"a measure is NAME=KIND(LANDMARK,...), not {text!r}")
    name, kind, inside = found.groups()
    if kind not in _KINDS:
        raise ValueError(f"{text!r}: a measure is one of {', '.join(_KINDS)}, not {kind!r}")
    points = tuple(_point(each.strip(), text, names) for each in inside.split(","))
    count = _KINDS[kind][0]
    if len(points) != count:
        raise ValueError(f"{text!r}: {kind} is of {count} landmarks, not {len(points)}")
    pairs = [points[:2], points[-2:]]
    if any(first == second for first, second in pairs):
        raise ValueError(f"{text!r}: a landmark has no distance from itself")
    return Measure(name, kind, points)


def _point(word: str, text: str, names: Sequence[str]) -> int:
    if word in names:
        return list(names).index(word)
    if word.isascii() and word.isdigit() and int(word) < len(names):
        return int(word)
    raise ValueError(
        f"{text!r}: no landmark is called {word!r}; give a name, or a number from 0 to {len(names) - 1}"
    )


def _distance(places: np.ndarray) -> _Found:
    offset = places[..., 1, :] - places[..., 0, :]
    length = np.linalg.norm(offset, axis=-1)
    along = offset / length[..., np.newaxis]
    return length, np.stack([-along, along], axis=-2)


def _angle(places: np.ndarray) -> _Found:
    first, second = places[..., 0, :] - places[..., 1, :], places[..., 2, :] - places[..., 1, :]
    cross = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
    angle = np.degrees(np.arctan2(cross, np.sum(first * second, axis=-1)))

    def turned(arm: np.ndarray) -> np.ndarray:
        """Return the derivative, in degrees, of an arm's direction by its end."""
        square = np.sum(arm**2, axis=-1, keepdims=True)
        return np.degrees(np.stack([-arm[..., 1], arm[..., 0]], axis=-1) / square)

    of_first, of_second = -turned(first), turned(second)
    slope = np.stack([of_first, -of_first - of_second, of_second], axis=-2)
    return np.abs(angle), np.where(angle < 0, -1, 1)[..., np.newaxis, np.newaxis] * slope


def _ratio(places: np.ndarray) -> _Found:
    above, of_above = _distance(places[..., :2, :])
    below, of_below = _distance(places[..., 2:, :])
    value = above / below
    scale = [(1 / below)[..., np.newaxis, np.newaxis], (value / below)[..., np.newaxis, np.newaxis]]
    return value, np.concatenate([scale[0] * of_above, -scale[1] * of_below], axis=-2)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return np.einsum("...ij,...j,...kj->...ik", vectors, np.sqrt(np.maximum(values, 0)), vectors)


_KINDS: dict[str, tuple[int, Callable[[np.ndarray], _Found]]] = {
    "distance": (2, _distance),
    "angle": (3, _angle),
    "ratio": (4, _ratio),
}
