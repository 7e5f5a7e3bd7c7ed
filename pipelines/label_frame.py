"""The picture that labels are of: the one that is stored, turned by EXIF, or at another scale."""

from dataclasses import replace

import numpy as np

from pipelines.errors import Unusable
from pipelines.readers.annotation import Labels, check_box
from pipelines.source_image import SourceImage, UprightImage

__all__ = ["in_pixels_of"]

# How a size in the labels' file can fit one of the picture.
_NEITHER, _SCALED, _SAME = range(3)

# Part of a picture's side by which a point of it may lie beyond its edge.
_BEYOND = 0.1


def in_pixels_of(
    labels: Labels, image: SourceImage
) -> tuple[Labels, SourceImage | UprightImage, tuple[str, ...]]:
    """Return labels in original pixels, the picture that has these pixels, and codes of `pipelines.notes`.

    Raises:
      Unusable: "turned_by_exif" if the labels are of the upright picture and it may not be turned,
        "wrong_image_size" if their file says a size that the picture has in no way.
    """
    if labels.frame == "stored":
        return labels, image, ()
    declared, upright = labels.size, UprightImage(image)
    as_stored, as_shown = _fit(declared, image.size), _fit(declared, upright.size)
    if as_stored == as_shown == _NEITHER:
        raise Unusable("wrong_image_size", f"{_sizes(labels, image)}, which is another shape")
    picture: SourceImage | UprightImage = image
    notes: tuple[str, ...] = ()
    if image.orientation != 1:
        if labels.frame == "upright":
            picture, notes = upright, ("turned",)
            if declared and as_shown < as_stored:
                declared, notes = declared[::-1], ("turned", "turned_against_size")
        elif as_shown > as_stored:
            raise Unusable(
                "turned_by_exif",
                f"{_sizes(labels, image)}, which EXIF's orientation {image.orientation} turns: the labels "
                "are of the upright picture, which --apply-exif makes",
            )
        else:
            notes = ("exif_ignored",)
    if declared in (None, picture.size):
        return labels, picture, notes
    return _scaled(labels, declared, picture.size), picture, (*notes, "scaled")


def _fit(declared: tuple[int, int] | None, size: tuple[int, int]) -> int:
    """Return whether a picture of that size is the declared one, or the same at another scale."""
    if declared is None or declared == size:
        return _SAME
    # Either side may have been rounded up or down.
    least = max((side - 1) / said for side, said in zip(size, declared, strict=True))
    most = min((side + 1) / said for side, said in zip(size, declared, strict=True))
    return _SCALED if least <= most else _NEITHER


def _scaled(labels: Labels, declared: tuple[int, int], size: tuple[int, int]) -> Labels:
    said, factor = np.array(declared), np.array(size) / declared
    labelled = labels.weights[:, np.newaxis] > 0
    beyond = np.abs((labels.landmarks + 0.5) / said - 0.5) > 0.5 + _BEYOND
    if np.any(labelled & beyond):
        raise Unusable(
            "wrong_image_size",
            f"the labels' file says {declared[0]} x {declared[1]}, beyond which its own points lie; "
            f"the picture has {size[0]} x {size[1]}",
        )
    box = labels.box
    if box is not None:
        box = ((box.reshape(2, 2) + 0.5) * factor - 0.5).ravel()
        check_box(box)
    return replace(
        labels,
        landmarks=np.where(labelled, (labels.landmarks + 0.5) * factor - 0.5, 0.0),
        box=box,
        normalizer=labels.normalizer * float(np.sqrt(np.prod(factor))),
    )


def _sizes(labels: Labels, image: SourceImage) -> str:
    said = "no size" if labels.size is None else f"{labels.size[0]} x {labels.size[1]}"
    return f"the labels' file says {said}, the picture has {image.size[0]} x {image.size[1]}"
