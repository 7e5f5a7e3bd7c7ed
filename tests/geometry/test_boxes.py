"""Boxes from a stream, as both the client and the prediction job read them."""

import io
import itertools

import pytest

from tfhuber.geometry.boxes import read_box_lines


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_have_their_numbers_and_a_name_may_come_again(encoding):
    text = "name,x0,y0,x1,y1\nä.jpg,1,2,30,40\n\nä.jpg,5,6,7,8\n"
    found = list(read_box_lines(io.BytesIO(text.encode(encoding)), "boxes.csv"))
    assert [(number, name, box.tolist()) for number, name, box in found] == [
        (2, "ä.jpg", [1, 2, 30, 40]),
        (4, "ä.jpg", [5, 6, 7, 8]),
    ]


def test_a_file_is_read_as_its_boxes_are_taken():
    """Millions of lines are never held together: after ten, a small part of the file has been read."""

    class Endless(io.RawIOBase):
        taken = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            self.taken += len(buffer)
            buffer[:] = (b"a.jpg,1,2,3,4\n" * len(buffer))[: len(buffer)]
            return len(buffer)

    file = Endless()
    found = list(itertools.islice(read_box_lines(file, "boxes.csv"), 10))
    assert len(found) == 10 and file.taken < 100_000


def test_the_line_at_fault_is_named():
    lines = read_box_lines(io.BytesIO(b'{"source": "a", "box": [1, 2, 3, 4]}\n[]\n'), "b.JSONL")
    assert next(lines)[:2] == (1, "a")
    with pytest.raises(ValueError, match=r"b\.JSONL, line 2: must be an object"):
        next(lines)
