"""ImageFiles of boxes: what is read, and what is refused by its line."""

import pytest

from serving.client.boxes import read_boxes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("boxes.csv", "name,x0,y0,x1,y1\na.jpg,1,2,30,40\n7, -1.5,0,3,4\n\n"),
        ("boxes.txt", '"a.jpg",1,2,30,40\r\n7,-1.5,0,3,4'),
        (
            "boxes.jsonl",
            '{"source": "a.jpg", "frame": null, "box": [1, 2, 30, 40]}\n'
            '{"source": "x.mp4", "frame": 7, "box": [-1.5, 0, 3, 4]}\n',
        ),
    ],
)
def test_boxes_are_read(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    boxes = read_boxes(tmp_path / name)
    assert {key: box.tolist() for key, box in boxes.items()} == {
        "a.jpg": [1, 2, 30, 40],
        "7": [-1.5, 0, 3, 4],
    }


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_boxes_of_spreadsheets_are_read(separator, encoding, end, tmp_path):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    decimal = "1.5" if separator == "," else "1,5"
    rows = [["Bild", "x0", "y0", "x1", "y1"], ["ä.jpg", decimal, "2", "30", "40"], ["7", *"0034"]]
    text = mark + "".join(separator.join(row) + end for row in rows)
    (tmp_path / "boxes.csv").write_bytes(text.encode(encoding))
    found = {name: box.tolist() for name, box in read_boxes(tmp_path / "boxes.csv").items()}
    assert found == {"ä.jpg": [1.5, 2, 30, 40], "7": [0, 0, 3, 4]}


def test_a_separator_in_a_name_is_a_part_of_it(tmp_path):
    text = 'a;b;c;d;e.jpg,1,2,30,40\n"f,g";1,5;2,5;30,5;40,5\n'
    (tmp_path / "boxes.csv").write_text(text)
    found = {name: box.tolist() for name, box in read_boxes(tmp_path / "boxes.csv").items()}
    assert found == {"a;b;c;d;e.jpg": [1, 2, 30, 40], "f,g": [1.5, 2.5, 30.5, 40.5]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.csv", "a.jpg,1,2,3\n", "line 1: must be four numbers"),
        ("b.csv", "a.jpg,1,2,3,4\nb.jpg,x,2,3,4\n", "line 2: must be four numbers"),
        ("b.csv", "a.jpg,1,2,1,4\n", "line 1: .* is empty"),
        ("b.csv", "a.jpg,1,2,nan,4\n", "line 1: must be four numbers"),
        ("b.csv", "a.jpg,1,2,3,4\na.jpg,1,2,3,5\n", r"line 2: a second box for a\.jpg"),
        ("b.csv", "a.jpg\n", "line 1: must be four numbers"),
        ("b.jsonl", "{", "line 1: Expecting"),
        ("b.jsonl", "[1]", "line 1: must be an object"),
        ("b.jsonl", '{"source": "a", "box": 3}', "line 1: must be an object"),
        ("b.jsonl", '{"box": [1, 2, 3, 4]}', 'line 1: must have a "source"'),
        ("b.jsonl", '{"frame": 1, "box": [1, 2, 3, null]}', "line 1: must be four numbers"),
        ("b.jsonl", "[" * 100_000, "line 1: "),
    ],
)
def test_boxes_that_make_no_sense_name_their_line(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_boxes(tmp_path / name)


@pytest.mark.parametrize(
    "first", ["a.jpg,1,x,3,4", "a.jpg,nan,nan,nan,nan", "a.jpg,x,y", "x,y,w,h"]
)
def test_a_first_line_with_numbers_or_too_few_values_is_no_heading(first, tmp_path):
    (tmp_path / "boxes.csv").write_text(f"{first}\nb.jpg,1,2,3,4\n")
    with pytest.raises(ValueError, match="line 1: must be four numbers"):
        read_boxes(tmp_path / "boxes.csv")
