"""The square that the network sees for a box: arithmetic that needs neither TensorFlow nor NumPy."""

from typing import Any

__all__ = ["SQUARE_RULES", "square_around"]

SQUARE_RULES = ("diagonal", "longest")


def square_around(box: Any, rule: str) -> tuple[Any, Any, Any]:
    """Return the square (centre x, centre y, half side) that the network sees for a box, in its frame.

    Args:
      box: [..., 4] x0, y0, x1, y1, a NumPy array or a tensor.
      rule: "diagonal": half the side is half the box's diagonal (WFLW's recipe);
        "longest": the side is the box's longer side (MPII, whose box is the square itself).

    Raises:
      ValueError: if `rule` is neither.
    """
    if rule not in SQUARE_RULES:
        raise ValueError(f"rule must be one of {SQUARE_RULES}, got {rule!r}")
    x0, y0, x1, y1 = (box[..., i] for i in range(4))
    width, height = x1 - x0, y1 - y0
    if rule == "diagonal":
        side = (width * width + height * height) ** 0.5
    else:
        side = (width + height + abs(width - height)) / 2
    return (x0 + x1) / 2, (y0 + y1) / 2, side / 2
