"""From network crops to positions and precisions, one view or two: what evaluation and export share."""

import functools
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from tfhuber.config import schema
from tfhuber.config.schema import Config
from tfhuber.console.files import read_json
from tfhuber.distributions import fusion
from tfhuber.distributions.elliptical import Elliptical
from tfhuber.distributions.radial import RadialEnergy, radial_energy
from tfhuber.geometry import projective
from tfhuber.landmarks import known_sets
from tfhuber.landmarks.known_sets import LandmarkSet
from tfhuber.model import network as model
from tfhuber.model.whitening import Whitening
from tfhuber.runs.checkpoints import restore_newest

__all__ = ["TTA", "Predictor", "load_run"]

TTA = ("none", "mean", "ml")


@dataclass(frozen=True)
class Predictor:
    """A trained model with all that its outputs need to become positions.

    Attributes:
      model: as `model.build` makes it.
      whitening: of its training labels.
      config: of its run.
      landmark_set: what it predicts.
    """

    model: keras.Model
    whitening: Whitening
    config: Config
    landmark_set: LandmarkSet

    def compiled(self, tta: str = "none"):
        """`predict` with that `tta` as one graph, traced once for any batch size."""
        return self._compiled[tta]

    @functools.cached_property
    def _compiled(self):
        size = self.config.model.image_size
        images = tf.TensorSpec([None, size, size, 3], tf.float32)
        return {
            tta: tf.function(functools.partial(self.predict, tta=tta), input_signature=[images])
            for tta in TTA
        }

    @property
    def energy(self) -> RadialEnergy:
        """The radial energy of the predicted distributions."""
        return radial_energy(self.config.model.family, self.config.model.delta)

    def predict(self, images: tf.Tensor, tta: str = "none") -> tuple[tf.Tensor, tf.Tensor]:
        """`loc` [N, K, 2] and `precision_factor` [N, K, 2, 2] in network-crop pixels.

        Args:
          images: [N, S, S, 3] network crops, 0..255.
          tta: "none": the image alone; "mean" and "ml" add its mirror image. "mean" averages the two
            positions (and the two matrices A A); "ml" takes the point of maximum likelihood
            (supplement E); as if the two erred independently, which makes its covariance too small.

        Raises:
          ValueError: if `tta` is none of these.
        """
        if tta not in TTA:
            raise ValueError(f"tta must be one of {', '.join(TTA)}, got {tta!r}")
        plain = self._one_view(images)
        if tta == "none":
            return plain
        views = [plain, self._mirrored_view(images)]
        loc = tf.stack([view[0] for view in views])
        factor = tf.stack([view[1] for view in views])
        if tta == "ml":
            return fusion.fuse(loc, factor, self.energy)
        return fusion.mean_fusion(loc, factor)

    def distribution(self, loc: tf.Tensor, precision_factor: tf.Tensor) -> Elliptical:
        """The predicted distributions, in whichever frame `loc` and `precision_factor` are."""
        return Elliptical(loc, precision_factor, self.energy)

    def _one_view(self, images):
        return self.whitening.to_network(self.model(images, training=False))

    def _mirrored_view(self, images):
        """The prediction for the mirror image, brought back into the plain image's frame."""
        loc, factor = self._one_view(images[:, :, ::-1])
        order = tf.constant(self.landmark_set.mirror)
        loc, factor = tf.gather(loc, order, axis=1), tf.gather(factor, order, axis=1)
        h = projective.mirror_map(self.config.model.image_size)
        return projective.apply_map(h, loc), projective.push_precision_factor(h[:2, :2], factor)


def load_run(directory: str | Path, checkpoint: str = "latest") -> Predictor:
    """The predictor of a training run.

    Args:
      directory: what `python -m tfhuber.train --run` wrote.
      checkpoint: "latest" or "best".

    Raises:
      ValueError: if there is no such run or checkpoint; the message says what to do.
    """
    directory = Path(directory)
    try:
        values = read_json(directory / "run.json")
        config = schema.parse(values["config"], str(directory / "run.json"))
        landmark_set = known_sets.parse(values["landmark_set"])
        whitening = Whitening.load(directory / "whitening.json", landmark_set.count)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{directory} is no training run that can be read ({error}); "
            "make one with `python -m tfhuber.train --config configs/NAME.json --run DIR`"
        ) from error
    # The checkpoint holds the weights themselves, so a preset need not be at hand to read them.
    options = config.model.model_copy(update={"pretrained": None, "transfer": None})
    network = model.build(options, landmark_set.count)
    if not restore_newest(tf.train.Checkpoint(model=network), directory / checkpoint):
        raise ValueError(f"{directory / checkpoint} holds no checkpoint yet; train longer")
    return Predictor(network, whitening, config, landmark_set)
