"""From network crops to positions and precisions, one view or two: what evaluation and export share."""

import functools
from dataclasses import dataclass

import keras
import tensorflow as tf

from tfhuber.config.schema import Config
from tfhuber.distributions import fusion
from tfhuber.distributions.elliptical import Elliptical
from tfhuber.distributions.radial import RadialEnergy, radial_energy
from tfhuber.geometry import projective
from tfhuber.landmarks.known_sets import LandmarkSet
from tfhuber.model.whitening import Whitening

__all__ = ["TTA", "Predictor"]

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
