"""What a conversion did with annotations that are not as they should be, and took all the same."""

from collections.abc import Iterator, Mapping

__all__ = ["MEANINGS", "explained"]

MEANINGS = {
    "box_from_points": "had no usable box; that of their points, with a margin, stands for it",
    "exif_ignored": "are on photographs that EXIF's orientation turns, and were taken in the pixels as "
    "stored; if the contact sheet shows them beside their points, convert with --apply-exif",
    "lost_points": "had points whose coordinates or visibility are no numbers, now without a label",
    "position_as_id": "had no id of their own; their position in the file stands for it",
    "scaled": "were made on pictures of another size, and scaled to those that are here",
    "turned": "are on photographs that were turned as EXIF's orientation says",
    "turned_against_size": "of these have the photograph's size before turning in their file: look at the "
    "contact sheet",
}


def explained(notes: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for a human about each code and how many annotations it was counted for."""
    for code, count in sorted(notes.items()):
        yield f"note: {count:,} annotations {MEANINGS[code]} ({code})"
