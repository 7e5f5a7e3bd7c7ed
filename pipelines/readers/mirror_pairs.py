"""Which landmarks change places in a mirror image, as far as their names say it."""

import re
from collections.abc import Callable, Sequence

from tfhuber.landmarks.known_sets import LandmarkSet

__all__ = ["mirror_pairs", "pairs_left_alone"]

# `paw1LH_top` has the words paw, 1, LH, top; `LeftEar` has Left, Ear; `pawL` has paw, L.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
# The side of a limb: fore, front, hind, back, mid, top, bottom, upper, outer, inner.
_LIMB = re.compile(r"[lr][fhbmtuoi]|[fhbmtuoi][lr]")
_SIDE = re.compile("left|right", re.IGNORECASE)

_Words = tuple[str, ...]


def mirror_pairs(names: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return pairs of names that differ in left and right, and the names whose other side is not there.

    A side is the word left, right, l or r in a name, in any case, or the letter beside that of a limb, as
    in LH and FR; and, if the other one is there, the first letter of a word, as in Lpaw and Rpaw. Numbers
    may differ if that leaves no doubt.

    Example:
      >>> mirror_pairs(["nose", "earL", "earR", "paw1LH", "paw4RH", "left_hip"])
      ([('earL', 'earR'), ('paw1LH', 'paw4RH')], ['left_hip'])
    """
    partner: dict[str, str] = {}
    for words in (_words, _without_numbers, _with_initials):
        partner |= _matches([name for name in names if name not in partner], words)
    place = {name: index for index, name in enumerate(names)}
    pairs = [(one, other) for one, other in partner.items() if place[one] < place[other]]
    sided = [name for name in names if _mirrored(_words(name)) != _words(name)]
    return sorted(pairs, key=lambda pair: place[pair[0]]), [n for n in sided if n not in partner]


def pairs_left_alone(landmark_set: LandmarkSet) -> list[tuple[str, str]]:
    """Return the pairs of `mirror_pairs` both of whose points keep their places in a mirror image."""
    names = landmark_set.names
    place = {name: index for index, name in enumerate(names)}
    return [
        pair
        for pair in mirror_pairs(names)[0]
        if all(landmark_set.mirror[place[name]] == place[name] for name in pair)
    ]


def _matches(names: list[str], words: Callable[[str], _Words]) -> dict[str, str]:
    """Return, of each name that is the mirror image of one other name and of no more, this other."""
    having: dict[_Words, list[str]] = {}
    for name in names:
        having.setdefault(words(name), []).append(name)
    found = {}
    for own, same in having.items():
        others = having.get(_mirrored(own), [])
        if _mirrored(own) != own and len(same) == len(others) == 1:
            found[same[0]] = others[0]
    return found


def _mirrored(words: _Words) -> _Words:
    return tuple(
        "".join(_SIDES.get(letter, letter) for letter in word)
        if _LIMB.fullmatch(word)
        else _SIDES.get(word, word)
        for word in words
    )


def _words(name: str) -> _Words:
    """Return the words of a name in lower case; `leftear`, which has no bounds, is left and ear."""
    found = []
    for word in _WORD.findall(name):
        side, rest = _SIDE.search(word), _SIDE.split(word)
        found += [rest[0], side[0], *rest[1:]] if side and "" in rest else [word]
    return tuple(word.lower() for word in found if word)


def _without_numbers(name: str) -> _Words:
    return tuple(word for word in _words(name) if not word.isdigit())


def _with_initials(name: str) -> _Words:
    """Return the words, an l or r at the beginning of one as a word of its own."""
    return tuple(
        part
        for word in _words(name)
        for part in ((word[0], word[1:]) if word[0] in "lr" and word not in _SIDES else (word,))
        if part
    )
