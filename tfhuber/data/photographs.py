"""Which photograph an example is of, by its id."""

import hashlib
import re
from collections.abc import Iterable

__all__ = ["photograph_name", "shuffled"]

# How 300W-LP names its images.
_RENDERED = re.compile(
    r"(AFW|HELEN|IBUG|LFPW)(_Flip)?/(?P<photograph>[^#]+?)(_\d{1,2})?_\d+\.jpg", re.ASCII
)


def photograph_name(id: bytes | str) -> str:
    """Return the name of an example's photograph.

    An example's id is `image#number`, as the readers write it, or the image alone. In 300W-LP that is one
    of a photograph's many faces, poses and mirrored copies, whose numbers its name ends with.

    >>> photograph_name("a.jpg#1"), photograph_name(b"HELEN/HELEN_1_0_12.jpg")
    ('a.jpg', 'HELEN_1')
    """
    text = id.decode(errors="replace") if isinstance(id, bytes) else id
    if rendered := _RENDERED.fullmatch(text):
        return rendered["photograph"]
    return text.rpartition("#")[0] or text


def shuffled(names: Iterable[str]) -> list[str]:
    """Return the different names in the order of a hash of theirs, which is always the same.

    >>> shuffled(["b", "a", "b", "c"])
    ['c', 'b', 'a']
    """
    return sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
