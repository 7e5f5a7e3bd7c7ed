"""What a new run takes over from the one that `model.transfer` names.

All weights before the head; and of the head, with the whitening that gives them their meaning, the rows
of the landmarks that both runs have. Such a landmark is first predicted exactly as it was there.
"""

from collections import Counter
from collections.abc import Sequence

import keras
import numpy as np

from tfhuber.config.schema import Model
from tfhuber.landmarks.known_sets import LandmarkSet
from tfhuber.model.predictor import Predictor
from tfhuber.model.whitening import Whitening

__all__ = ["carry_over", "kept_rows", "kept_whitening", "shared_landmarks"]

# Pairs of a landmark's place in the source and in the target.
Pairs = Sequence[tuple[int, int]]


def shared_landmarks(source: LandmarkSet, target: LandmarkSet) -> Pairs:
    """Return the places (in source, in target) of the landmarks that both sets have.

    They have one name. Of numbered ones, as `jaw_0` to `jaw_16`, both sets must have as many: with other
    numbers the points of one contour lie elsewhere.
    """

    def stem(name: str) -> str:
        head, _, number = name.rpartition("_")
        return head if head and number.isdecimal() else name

    theirs, ours = (Counter(map(stem, each.names)) for each in (source, target))
    place = {
        name: i for i, name in enumerate(source.names) if theirs[stem(name)] == ours[stem(name)]
    }
    return [(place[name], i) for i, name in enumerate(target.names) if name in place]


def kept_rows(source: Predictor, options: Model, landmark_set: LandmarkSet) -> Pairs:
    """Return the landmarks whose rows of the head are kept: none where A or nu is predicted otherwise.

    Args:
      source: what is transferred.
      options: the `model` section of the new run.
      landmark_set: of the new run.
    """
    for key in ("covariance", "parameterization", "theta"):
        if getattr(source.options, key) != getattr(options, key):
            return []
    return shared_landmarks(source.landmark_set, landmark_set)


def kept_whitening(fitted: Whitening, source: Whitening, pairs: Pairs) -> Whitening:
    """Return the whitening `fitted` to new labels, with the source's rows for the landmarks in `pairs`."""
    mean, factor = fitted.mean.copy(), fitted.factor.copy()
    for i, k in pairs:
        mean[k], factor[k] = source.mean[i], source.factor[i]
    return Whitening(mean, factor)


def carry_over(source: keras.Model, target: keras.Model, pairs: Pairs = ()) -> None:
    """Copy the weights of one model of `network.build` to another; of the head, the rows in `pairs`.

    Raises:
      ValueError: if the two have other backbones, another pooling or another size of the image.
    """
    old, new = (
        {layer.name: layer for layer in model.layers if layer.weights and layer.name != "head"}
        for model in (source, target)
    )
    shapes = [
        {name: [w.shape for w in each.weights] for name, each in m.items()} for m in (old, new)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "model.transfer names a run with another model.backbone, model.pooling or "
            "model.image_size; set these to match"
        )
    for name, layer in new.items():
        layer.set_weights(old[name].get_weights())
    if pairs:
        there, here = (model.get_layer("head") for model in (source, target))
        here.set_weights(
            [
                _with_rows(before, after, here.width, pairs)
                for before, after in zip(there.get_weights(), here.get_weights(), strict=True)
            ]
        )


def _with_rows(before: np.ndarray, after: np.ndarray, width: int, pairs: Pairs) -> np.ndarray:
    """Return `after` [..., K' width] with the parameters that `before` [..., K width] has for `pairs`."""
    source = before.reshape(*before.shape[:-1], -1, width)
    target = after.reshape(*after.shape[:-1], -1, width).copy()
    rows, places = zip(*pairs, strict=True)
    target[..., list(places), :] = source[..., list(rows), :]
    return target.reshape(after.shape)
