"""How much alike the views of a photograph err, such as a photograph and its mirror image."""

import numpy as np

__all__ = ["correlation"]


def correlation(errors: np.ndarray) -> float:
    """Return the correlation of two views' whitened errors, which a few wrong labels can't move.

    With m(x) the median length it is (Gnanadesikan and Kettenring, 1972)

        (m(z_1 + z_2)^2 - m(z_1 - z_2)^2) / (m(z_1 + z_2)^2 + m(z_1 - z_2)^2).

    Args:
      errors: [2, ..., 2] whitened errors of the two views, each by its own A; NaN where unlabelled.

    Raises:
      ValueError: if nothing is labelled, or both views are always right.
    """
    both, apart = (
        np.linalg.norm(combined, axis=-1)
        for combined in (errors[0] + errors[1], errors[0] - errors[1])
    )
    labelled = ~np.isnan(both)
    if not np.any(both[labelled] + apart[labelled] > 0):
        raise ValueError("errors must hold a labelled landmark that a view has not quite right")
    together, differing = (float(np.median(each[labelled])) ** 2 for each in (both, apart))
    return (together - differing) / (together + differing)
