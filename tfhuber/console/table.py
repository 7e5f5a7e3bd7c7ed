"""Tables as aligned text."""

import functools
import textwrap
from collections.abc import Collection, Sequence

from tabulate import tabulate

__all__ = ["aligned"]


def aligned(
    rows: Sequence[Sequence[str]], *, right: Collection[int] = (), last_width: int | None = None
) -> str:
    """Return rows of texts in columns that are two spaces apart.

    Args:
      rows: of one length.
      right: the columns that are aligned at their right side.
      last_width: characters in a line of the last column, whose longer texts go on in the next line.

    Example:
      >>> print(aligned([["run", "images"], ["a", "1,024"], ["b", "96"]], right=[1]))
      run  images
      a     1,024
      b        96
    """
    if last_width is not None:  # tabulate's own wrapping breaks options at their hyphens
        wrap = functools.partial(textwrap.fill, width=last_width, break_on_hyphens=False)
        rows = [[*row[:-1], wrap(row[-1])] for row in rows]
    alignments = ["right" if i in right else "left" for i in range(len(rows[0]))]
    return tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=alignments)
