"""From network crops to distributions in their pixels, by one view or two: for evaluation and export."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from tfhuber.config import schema
from tfhuber.distributions import fusion
from tfhuber.distributions.location_scatter import LocationScatter
from tfhuber.distributions.radial import RadialEnergy, radial_energy
from tfhuber.geometry import projective
from tfhuber.landmarks.known_sets import LandmarkSet
from tfhuber.model.whitening import Whitening

__all__ = ["TTA", "Predictor"]

TTA = ("none", "mean", "ml")


@dataclass(frozen=True)
class Predictor:
    """A trained model with all that its outputs need to become distributions in pixels.

    Attributes:
      model: as `network.build` makes it.
      whitening: of its training labels.
      options: the `model` section of its run's configuration.
      landmark_set: what it predicts.
      batch_size: how many images are predicted at once where there are many.
      step: of the checkpoint that the weights are from; None where they are from none.
    """

    model: keras.Model
    whitening: Whitening
    options: schema.Model
    landmark_set: LandmarkSet
    batch_size: int
    step: int | None = None

    def compiled(self, tta: str = "none") -> Callable[[tf.Tensor], LocationScatter]:
        """Return `predict` with that `tta` as one graph, traced once for any batch size."""
        return self._compiled[tta]

    @functools.cached_property
    def _compiled(self) -> dict[str, Callable[[tf.Tensor], LocationScatter]]:
        size = self.options.image_size
        images = tf.TensorSpec([None, size, size, 3], tf.float32)
        return {
            tta: tf.function(
                functools.partial(self.predict, tta=tta), input_signature=[images], autograph=False
            )
            for tta in TTA
        }

    @property
    def energy(self) -> RadialEnergy:
        """The radial energy of the predicted distributions."""
        return radial_energy(self.options.family, self.options.delta)

    def predict(self, images: tf.Tensor, tta: str = "none") -> LocationScatter:
        """Return the distributions [N, K] of the landmarks in network-crop pixels.

        Args:
          images: [N, S, S, 3] network crops, 0..255.
          tta: "none": the image alone; "mean" and "ml" add its mirror image. "mean" averages the two
            positions (and the two matrices A A); "ml" takes the point of maximum likelihood
            (supplement E) as if the two erred independently, which makes its covariance too small.

        Raises:
          ValueError: if `tta` is none of these.
        """
        if tta not in TTA:
            raise ValueError(f"tta must be one of {', '.join(TTA)}, got {tta!r}")
        plain = self._plain_view(images)
        if tta == "none":
            return plain
        views = [plain, self._mirrored_view(images)]
        loc = tf.stack([view.loc for view in views])
        factor = tf.stack([view.precision_factor for view in views])
        if tta == "ml":
            return LocationScatter.from_factor(*fusion.fuse(loc, factor, self.energy))
        return LocationScatter.from_factor(*fusion.mean_fusion(loc, factor))

    def _plain_view(self, images: tf.Tensor) -> LocationScatter:
        return self.whitening.to_network(self.model(images, training=False))

    def _mirrored_view(self, images: tf.Tensor) -> LocationScatter:
        """Return the prediction for the mirror image, brought back into the plain image's frame."""
        mirrored = self._plain_view(images[:, :, ::-1])
        h = projective.mirror_map(self.options.image_size)
        return mirrored.reordered(tf.constant(self.landmark_set.mirror)).affine(h[:2, :2], h[:2, 2])
