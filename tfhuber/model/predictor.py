"""From network crops to distributions in their pixels, by one view or two: for evaluation and export."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

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
      correlations: how much alike an image and its mirror image err, from 0 to 1, for the `tta` that has
        been calibrated; the others do as `predict` says.
    """

    model: keras.Model
    whitening: Whitening
    options: schema.Model
    landmark_set: LandmarkSet
    batch_size: int
    step: int | None = None
    correlations: Mapping[str, float] = field(default_factory=dict)

    def correlated(self, correlations: Mapping[str, float]) -> "Predictor":
        """Return the predictor with those `correlations`."""
        return replace(self, correlations=correlations)

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
            (supplement E) as if the two erred independently, which makes its covariance too small
            unless `correlations` says how they do.

        Raises:
          ValueError: if `tta` is none of these.
        """
        if tta not in TTA:
            raise ValueError(f"tta must be one of {', '.join(TTA)}, got {tta!r}")
        if tta == "none":
            return self._plain_view(images)
        return self.fused(self.views(images), tta)

    def views(self, images: tf.Tensor) -> list[LocationScatter]:
        """Return the distributions [N, K] by the image and by its mirror image, in network-crop pixels."""
        return [self._plain_view(images), self._mirrored_view(images)]

    def fused(self, views: Sequence[LocationScatter], tta: str) -> LocationScatter:
        """Return the distributions [N, K] by both views, which is what `predict` makes of `views`."""
        loc = tf.stack([view.loc for view in views])
        factor = tf.stack([view.precision_factor for view in views])
        if tta == "ml":
            correlation = self.correlations.get("ml", 0.0)
            fused = fusion.fuse(loc, factor, self.energy, correlation=correlation)
        else:
            fused = fusion.mean_fusion(loc, factor, self.correlations.get("mean", 1.0))
        return LocationScatter.from_factor(*fused)

    def _plain_view(self, images: tf.Tensor) -> LocationScatter:
        return self.whitening.to_network(self.model(images, training=False))

    def _mirrored_view(self, images: tf.Tensor) -> LocationScatter:
        """Return the prediction for the mirror image, brought back into the plain image's frame."""
        mirrored = self._plain_view(images[:, :, ::-1])
        h = projective.mirror_map(self.options.image_size)
        return mirrored.reordered(tf.constant(self.landmark_set.mirror)).affine(h[:2, :2], h[:2, 2])
