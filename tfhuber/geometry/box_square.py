"""The region that the network sees for a box: arithmetic that needs neither TensorFlow nor NumPy."""

from typing import Any

__all__ = ["SQUARE_RULES", "region_around"]

SQUARE_RULES = ("diagonal", "longest", "stretch")


def region_around(box: Any, rule: str) -> tuple[Any, Any, Any, Any]:
    """Return what the network sees for a box, in its frame: centre x, centre y, half width, half height.

    Args:
      box: [..., 4] x0, y0, x1, y1, a NumPy array or a tensor.
      rule: "diagonal": a square, half of whose side is half the box's diagonal (WFLW's recipe);
        "longest": a square, whose side is the box's longer side (MPII, whose box is the square itself);
        "stretch": the box itself, stretched to the network's square, so that no pixel is wasted.

    Raises:
      ValueError: if `rule` is none of these.
    """
    if rule not in SQUARE_RULES:
        raise ValueError(f"rule must be one of {SQUARE_RULES}, got {rule!r}")
    x0, y0, x1, y1 = (box[..., i] for i in range(4))
    width, height = x1 - x0, y1 - y0
    if rule == "diagonal":
        width = height = (width * width + height * height) ** 0.5
    elif rule == "longest":
        width = height = (width + height + abs(width - height)) / 2
    return (x0 + x1) / 2, (y0 + y1) / 2, width / 2, height / 2
