"""The reader of DeepLabCut's projects: the layouts of its tables, and what is wrong in them."""

import numpy as np
import pytest
from conversion import convert, photograph
from pose_projects import PARTS, points, table, write_dlc, write_table
from reader_outcomes import Annotation, read_all

from pipelines.readers.annotation import Reject
from pipelines.readers.dlc import Dlc
from pipelines.storage import Source
from tfhuber.data import records
from tfhuber.data.tfrecord import read_records


def reader(root, **options):
    return Dlc.from_options(Source(str(root)), **options)


def read(root, **options):
    return read_all(reader(root, **options), root)


def one_table(root, text, encoding="utf-8", name="CollectedData_Ann.csv"):
    """A project with one video `v`, whose table is that text."""
    write_dlc(root, videos=())
    write_table(root / "labeled-data" / "v" / name, text, encoding)
    for index in range(2):
        photograph(root / "labeled-data/v" / f"img{index}.png")
    return root


def test_a_project_becomes_annotations(tmp_path):
    placed = write_dlc(tmp_path, skeleton="[[nose, earL], ['earL', 'tail'], [nose, paw]]")
    found = reader(tmp_path)
    assert found.landmark_set.name == "Reach" and found.landmark_set.names == PARTS
    assert found.landmark_set.edges == ((0, 1), (1, 3)) and found.landmark_set.mirror == (
        0,
        2,
        1,
        3,
    )
    assert any("earL - earR" in line for line in found.remarks)
    assert any("nose - paw" in line for line in found.remarks)
    items = read_all(found, tmp_path)
    assert [item.id for item in items] == list(placed)
    for item in items:
        np.testing.assert_array_equal(item.landmarks, placed[item.image])
        np.testing.assert_array_equal(item.weights, np.ones(4))
        low, high = placed[item.image].min(0), placed[item.image].max(0)
        margin = 0.15 * (high - low).max()
        np.testing.assert_allclose(item.box, [*(low - margin), *(high + margin)])
        assert item.normalizer == pytest.approx(np.sqrt(np.prod(high - low + 2 * margin)))
        assert (item.split, item.people, item.notes) == ("train", 1, ("box_from_points",))
    assert items[4].source == "labeled-data/b/CollectedData_Ann.csv"
    assert items[4].position == "line 5"


@pytest.mark.parametrize(
    ("columns", "path"),
    [
        (1, "labeled-data/v/img0.png"),
        (3, "labeled-data/v/img0.png"),
        (1, r"labeled-data\v\img0.png"),
        (1, r"C:\Users\me\proj\labeled-data\v\img0.png"),
        (1, "/home/me/labeled-data/proj/labeled-data/v/img0.png"),
        (1, "img0.png"),
    ],
)
def test_a_frame_may_be_named_in_any_way(tmp_path, columns, path):
    text = table([(path, points(1))], columns=columns)
    (item,) = read(one_table(tmp_path, text))
    assert item.image == "v/img0.png"
    np.testing.assert_array_equal(item.landmarks, points(1))
    manifest, rejects = convert(tmp_path, tmp_path / "out", dataset="dlc")
    assert not rejects and manifest["splits"]["train"]["examples"] == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_encoding_and_separator_are_seen(tmp_path, encoding, delimiter):
    cells = points(1)
    if delimiter == ";":
        cells = np.array([[str(v).replace(".", ",") for v in row] for row in cells], object)
    text = table([("labeled-data/v/img0.png", cells)], scorer="Ann, Bé", delimiter=delimiter)
    (item,) = read(one_table(tmp_path, text, encoding))
    np.testing.assert_array_equal(item.landmarks, points(1))


def test_empty_cells_are_not_labelled_and_what_is_no_number_is_counted(tmp_path):
    cells = points(1).astype(object)
    cells[0] = ["", ""]
    cells[1] = ["NaN", "nan"]
    lost = points(2).astype(object)
    lost[2] = ["inf", 3]
    lost[3] = ["", 5.0]
    rows = [("labeled-data/v/img0.png", cells), ("labeled-data/v/img1.png", lost)]
    first, second = read(one_table(tmp_path, table(rows)))
    np.testing.assert_array_equal(first.weights, [0, 0, 1, 1])
    np.testing.assert_array_equal(first.landmarks[:2], np.zeros((2, 2)))
    np.testing.assert_array_equal(second.weights, [1, 1, 0, 0])
    assert "lost_points" in second.notes and "lost_points" not in first.notes


def test_frames_that_cannot_be_used_are_counted_with_their_reason(tmp_path):
    outside = tmp_path / "secret.png"
    photograph(outside)
    empty = np.full((4, 2), "", object)
    place = np.full((4, 2), "", object)
    place[1] = [30, 40]
    rows = [
        ("labeled-data/v/img0.png", points(1)),
        ("labeled-data/v/absent.png", points(2)),
        ("labeled-data/v/img1.png", empty),
        ("labeled-data/v/img0.png", points(3)),
        ("labeled-data/../../secret.png", points(4)),
        (str(outside), points(5)),
        ("labeled-data/v/img1.png", place),
    ]
    root = one_table(tmp_path / "project", table(rows))
    manifest, rejects = convert(root, tmp_path / "out", "--split", "official", dataset="dlc")
    assert manifest["splits"]["train"]["examples"] == 1
    assert [(each["position"], each["reason"]) for each in rejects] == [
        ("line 5", "missing_image"),
        ("line 6", "unlabelled"),
        ("line 7", "duplicate_id"),
        ("line 8", "path_outside_source"),
        ("line 9", "path_outside_source"),
        ("line 10", "duplicate_id"),
    ]


def test_several_animals_are_an_entry_each(tmp_path):
    parts, names = ("nose", "earL", "earR"), ["mouse1", "mouse2"]
    one, two = points(1, 3), points(2, 3)
    nobody = np.full((3, 2), "", object)
    rows = [
        ("labeled-data/v/img0.png", [one, two]),
        ("labeled-data/v/img1.png", [nobody, two]),
        ("labeled-data/v/img2.png", [nobody, nobody]),
    ]
    items = read(one_table(tmp_path, table(rows, parts, individuals=names)))
    assert [item.id for item in items] == [
        "v/img0.png#mouse1",
        "v/img0.png#mouse2",
        "v/img1.png#mouse2",
        "v/img2.png",
    ]
    np.testing.assert_array_equal(items[0].landmarks, one)
    np.testing.assert_array_equal(items[2].landmarks, two)
    assert [item.people for item in items[:3]] == [2, 2, 1]
    whole = read(tmp_path, box="frame")
    reasons = [getattr(item, "reason", None) for item in whole]
    assert reasons == ["several_in_frame", "several_in_frame", None, "unlabelled"]
    assert isinstance(items[3], Reject) and items[3].reason == "unlabelled"


def test_the_points_of_no_animal_are_left_out(tmp_path):
    header = "scorer,A,A,A,A\nindividuals,m1,m1,single,single\nbodyparts,nose,nose,corner,corner\n"
    text = f"{header}coords,x,y,x,y\nlabeled-data/v/img0.png,1,2,3,4\n"
    root = one_table(tmp_path, text)
    assert reader(root).landmark_set.names == ("nose",)


def test_a_row_of_names_of_the_index_is_no_frame(tmp_path):
    lines = table([("labeled-data/v/img0.png", points(1))]).splitlines()
    lines.insert(3, "frame" + "," * 8)
    (item,) = read(one_table(tmp_path, "\n".join(lines)))
    assert item.position == "line 5"


def test_likelihoods_are_no_coordinates(tmp_path):
    header = "scorer,A,A,A\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n"
    text = f"{header}labeled-data/v/img0.png,1,2,0.9\n"
    found = reader(one_table(tmp_path, text), box="frame")
    (item,) = read_all(found, tmp_path)
    np.testing.assert_array_equal(item.landmarks, [[1, 2]])
    assert item.box is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "does not begin with the rows scorer"),
        ("scorer,A,A\nbodyparts,n,n\n", "has no row 'coords'"),
        ("scorer,A,A\ncoords,x,y\n", "has no row 'bodyparts'"),
        ("scorer,A,A\nbodyparts,n,n\ncoords,x,x\n", "x of 'n' twice"),
        ("scorer,A,A\nbodyparts,n,m\ncoords,x,y\n", "a column x and a column y"),
        ("scorer,A,B\nbodyparts,n,n\ncoords,x,x\n", "several scorers, A, B"),
        ("scorer,A\nbodyparts,n,n\ncoords,x,y\n", "different numbers of columns"),
        ("", "has no row 'scorer'"),
    ],
)
def test_a_table_that_is_none_is_an_error_of_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(one_table(tmp_path, text))
    assert "CollectedData_Ann.csv" in str(caught.value)


def test_the_columns_of_the_configurations_scorer_are_taken(tmp_path):
    text = (
        "scorer,Bob,Bob,Ann,Ann\nbodyparts,nose,nose,nose,nose\ncoords,x,y,x,y\n"
        "labeled-data/v/img0.png,1,2,3,4\n"
    )
    (item,) = read(one_table(tmp_path, text), box="frame")
    np.testing.assert_array_equal(item.landmarks, [[3, 4]])


def test_which_file_of_a_video_has_its_labels(tmp_path):
    root = one_table(
        tmp_path, table([("labeled-data/v/img0.png", points(1))]), name="CollectedData_B.csv"
    )
    assert reader(root).lists == ("labeled-data/v/CollectedData_B.csv",)
    write_table(root / "labeled-data/v/CollectedData_C.csv", "")
    with pytest.raises(
        ValueError, match=r"several scorers, CollectedData_B\.csv, CollectedData_C\.csv"
    ):
        reader(root)
    text = table([("labeled-data/v/img0.png", points(1))])
    write_table(root / "labeled-data/v/CollectedData_Ann.csv", text)
    assert reader(root).lists == ("labeled-data/v/CollectedData_Ann.csv",)


def test_h5_alone_is_an_error_that_says_how_to_get_the_csv(tmp_path):
    write_dlc(tmp_path)
    path = tmp_path / "labeled-data/a/CollectedData_Ann.csv"
    path.rename(path.with_suffix(".h5"))
    with pytest.raises(ValueError, match=r"a/CollectedData_Ann\.h5 has no CSV .*read_hdf"):
        reader(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "config.yaml is missing"),
        ("[1, 2", "no YAML that can be read"),
        ("- a\n- b\n", "it is no mapping"),
        ("!!python/object/apply:os.system ['true']", "no mapping"),
    ],
)
def test_a_folder_without_a_configuration_is_an_error_of_one_line(tmp_path, config, message):
    write_dlc(tmp_path)
    if config is None:
        (tmp_path / "config.yaml").unlink()
    else:
        (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(ValueError, match=message):
        reader(tmp_path)


def test_bodyparts_keep_the_order_of_the_configuration_and_their_text(tmp_path):
    text = table([("labeled-data/v/img0.png", points(1, 3))], ("no", "1", "tail"))
    root = one_table(tmp_path, text)
    (root / "config.yaml").write_text("Task: wflw\nbodyparts: [tail, no, gone]\nskeleton: []\n")
    found = reader(root)
    assert found.landmark_set.names == ("tail", "no", "1")
    assert found.landmark_set.name == "wflw_skeleton"
    (item,) = read_all(found, root)
    np.testing.assert_array_equal(item.landmarks, points(1, 3)[[2, 0, 1]])


def test_all_frames_of_a_video_stand_in_one_split(tmp_path, capsys):
    write_dlc(tmp_path / "source", videos=tuple("abcdef"), frames=2)
    source, half = tmp_path / "source", ("--validation-fraction", "0.5")
    divided = {}
    for options in ((), ("--split-by", "frame")):
        out = tmp_path / f"out{len(options)}"
        manifest, _ = convert(source, out, *half, *options, dataset="dlc")
        splits = {}
        for split in ("train", "valid"):
            for shard in records.shard_paths(out, manifest, split):
                with open(shard, "rb") as file:
                    ids = [records.decode(each)["id"].decode() for each in read_records(file)]
                splits[split] = {name.partition("/")[0] for name in ids}
        assert splits["train"] | splits["valid"] == set("abcdef")
        divided[options] = splits["train"] & splits["valid"]
    assert divided[()] == set() and divided["--split-by", "frame"]
    assert "each of the 6 videos" in capsys.readouterr().out


def test_one_video_is_said_and_split_by_frame(tmp_path, capsys):
    write_dlc(tmp_path / "source", videos=("a",), frames=12)
    manifest, _ = convert(
        tmp_path / "source", tmp_path / "out", "--split-by", "video", dataset="dlc"
    )
    assert 0 < manifest["splits"]["valid"]["examples"] < 6
    assert "of one video" in capsys.readouterr().out


def test_the_box_may_be_the_whole_frame(tmp_path):
    write_dlc(tmp_path / "source", videos=("a",), frames=2)
    assert reader(tmp_path / "source", box="frame").landmark_set.square == "stretch"
    assert reader(tmp_path / "source").landmark_set.square == "longest"
    items = read(tmp_path / "source", box="frame")
    assert all(isinstance(item, Annotation) and item.box is None for item in items)
    convert(
        tmp_path / "source",
        tmp_path / "out",
        "--box",
        "frame",
        "--split",
        "official",
        dataset="dlc",
    )
    (shard,) = (tmp_path / "out").glob("*.tfrecord")
    with shard.open("rb") as file:
        examples = [records.decode(each) for each in read_records(file)]
    for example in examples:
        np.testing.assert_array_equal(example["box"], [-0.5, -0.5, 199.5, 179.5])
        assert example["normalizer"] == pytest.approx(np.sqrt(200 * 180))


def test_a_landmark_set_of_your_own_chooses_among_the_points(tmp_path):
    placed = write_dlc(tmp_path)
    (tmp_path / "mine.json").write_text('{"name": "mine", "landmarks": ["tail", "nose"]}')
    found = reader(tmp_path, landmarks=str(tmp_path / "mine.json"))
    np.testing.assert_array_equal(
        read_all(found, tmp_path)[0].landmarks, placed["a/img000.png"][[3, 0]]
    )
    (tmp_path / "mine.json").write_text('{"name": "mine", "landmarks": ["wing"]}')
    with pytest.raises(ValueError, match="none of the landmarks of 'mine'"):
        reader(tmp_path, landmarks=str(tmp_path / "mine.json"))


def test_the_real_project(shared_data, tmp_path):
    source = shared_data / "animals/deeplabcut_reaching"
    items = read(source)
    assert len(items) == 55 and all(isinstance(item, Annotation) for item in items)
    np.testing.assert_allclose(items[0].landmarks[0], [185.25173502386923, 610.3622760638572])
    np.testing.assert_array_equal(items[0].weights, [1, 1, 0, 1, 1])
