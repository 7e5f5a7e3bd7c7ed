"""What may have happened to an annotation, each compared by likelihood: NumPy and float64.

A model predicts the landmarks of a photograph that it was not trained on. Under its densities p_k the
labels y_k of an annotation are likely if they are right. Of what else may have happened,

- some points are wrong: a label is of p_k, or with a small probability anywhere on the object,
- left and right are exchanged, or the points have moved along by one: the labels are likely once that is
  undone, and then some points may be wrong as well,
- the annotation lies beside: it is likely once it is moved back as a whole, further than a network errs,
- it is of something else: the labels lie several times as far off as they should, or anywhere,

the one that makes the labels likeliest, less what it costs to be believed at all, is the annotation's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfhuber.calibration.law import Law

__all__ = ["KINDS", "Annotation", "Verdict", "judge"]

KINDS = ("right", "points", "left-right", "shifted", "beside", "other")

# How often a point, and how often a whole annotation, is thought to be wrong before anything is seen.
_POINT, _WHOLE = 0.01, 0.01
# How many times as wide as predicted another object's labels are spread. All of an object's labels may err
# twice as far as predicted, since their errors depend on each other.
_SPREADS = (3.0, 6.0, 12.0)


@dataclass(frozen=True)
class Annotation:
    """The labels of one object with what a model says of it, in one frame.

    Attributes:
      labels: [K, 2]; anything where there is none.
      labelled: [K].
      loc: [K, 2] predicted positions.
      factor: [K, 2, 2] predicted A.
      log_det: [K] of A.
    """

    labels: np.ndarray
    labelled: np.ndarray
    loc: np.ndarray
    factor: np.ndarray
    log_det: np.ndarray

    @property
    def log_area(self) -> float:
        """The logarithm of the area over which what is anywhere lies: that of a square about the object."""
        return 2 * float(np.log(max(np.ptp(self.loc, axis=0).max(), 1e-6) * 1.5))

    def nll(
        self, labels: np.ndarray, labelled: np.ndarray, law: Law, spread: float = 1.0
    ) -> np.ndarray:
        """Return minus the log-density [K] of labels in these places; that of the centre without one.

        `spread` makes the densities so many times as wide.
        """
        offset = np.where(labelled[:, None], labels - self.loc, 0.0)
        whitened = np.einsum("kij,kj->ki", self.factor, offset) / spread
        return law.nll(np.linalg.norm(whitened, axis=-1)) - self.log_det + 2 * np.log(spread)

    def anywhere(self, law: Law) -> np.ndarray:
        """Return minus the log-density [K] of a wrong label, nowhere denser than a right one may be."""
        return np.maximum(self.log_area, law.log_normalizer - self.log_det)


@dataclass(frozen=True)
class Verdict:
    """What most likely happened to an annotation.

    Attributes:
      kind: one of `KINDS`.
      score: by how many nats its likelihood, prior included, is above that of right labels.
      points: [K] by how many nats each label, put right as a whole, is likelier wrong than right; below 0
        where it is likelier right, and where there is none.
    """

    kind: str
    score: float
    points: np.ndarray


def judge(annotation: Annotation, law: Law, mirror: np.ndarray) -> Verdict:
    """Return what most likely happened to an annotation.

    Args:
      annotation: with one label at least.
      law: of the predicted distributions.
      mirror: [K] which landmark each one becomes in a mirror image.
    """
    anywhere = annotation.anywhere(law)
    best, right = Verdict("right", 0.0, np.zeros(len(annotation.labels))), np.inf
    for kind, labels, labelled, cost in _undone(annotation, law, mirror):
        # A label is right by (1 - e) p_k, and wrong by e / area.
        good = annotation.nll(labels, labelled, law) - np.log1p(-_POINT)
        bad = anywhere - np.log(_POINT)
        points = np.where(labelled, good - bad, -np.inf)
        if kind == "right":
            right = float(good[labelled].sum()) + cost
            best = Verdict(kind, 0.0, points)
            kind = "points" if points.max() > 0 else kind
        mixed = np.where(labelled, -np.logaddexp(-good, -bad), anywhere)
        # What has no label after it was undone had one before.
        score = right - float(mixed[annotation.labelled | labelled].sum()) - cost
        if score > best.score:
            best = Verdict(kind, score, points)
    # As a face lies on another one: several times as far from the prediction as its own labels would.
    labels, labelled = annotation.labels, annotation.labelled
    spreads = [annotation.nll(labels, labelled, law, spread)[labelled].sum() for spread in _SPREADS]
    score = right - float(min(*spreads, anywhere[labelled].sum())) + np.log(_WHOLE)
    return Verdict("other", score, best.points) if score > best.score else best


def _undone(
    annotation: Annotation, law: Law, mirror: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray, float]]:
    """Yield each thing that may have happened: labels and where there are any, as before it; its cost.

    A network's errors are alike over an object, so that all its labels may lie a little beside its
    predictions. They are first moved back by their median offset, which costs what it would for one label.
    """
    given, whole = (annotation.labels, annotation.labelled), -np.log(_WHOLE)
    offset, cost, far = _common_offset(annotation, *given, law)
    yield "right", given[0] - offset, given[1], cost
    yield "beside", given[0] - offset, given[1], whole + far
    others = [("shifted", np.roll(np.arange(len(mirror)), step), np.log(2)) for step in (1, -1)]
    if (mirror != np.arange(len(mirror))).any():
        others.append(("left-right", mirror, 0.0))
    for kind, order, choice in others:
        labels, labelled = (values[order] for values in given)
        offset, cost, _ = _common_offset(annotation, labels, labelled, law)
        yield kind, labels - offset, labelled, cost + whole + choice


def _common_offset(
    annotation: Annotation, labels: np.ndarray, labelled: np.ndarray, law: Law
) -> tuple[np.ndarray, float, float]:
    """Return the median offset [2] of labels, what it costs as an error, and what as any offset at all."""
    offset = np.median((labels - annotation.loc)[labelled], axis=0)
    factor = np.median(annotation.factor[labelled], axis=0)
    at_centre = -float(np.median(annotation.log_det[labelled]))
    return (
        offset,
        float(law.energy(np.linalg.norm(factor @ offset))),
        max(0.0, annotation.log_area - at_centre - law.log_normalizer),
    )
