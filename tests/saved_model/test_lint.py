"""Every fault that keeps a model from being served well is found and named; what is fine is left alone."""

import re
import shutil
import sys

import keras_hub  # noqa: F401
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfhuber import graph_lint
from tfhuber.saved_model import lint

FLOATS = tf.TensorSpec([None], tf.float32, name="x")


def save(directory, function, *specs, strict=True, **attributes):
    """A SavedModel with one signature, `look`, whose variables and files are the attributes'.

    If it is strict, it refuses other shapes than the specs'.
    """
    specs = specs or [FLOATS]

    def checked(*inputs):
        pairs = zip(inputs, specs, strict=True)
        return function(*(tf.ensure_shape(value, spec.shape) for value, spec in pairs))

    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    module.look = tf.function(checked if strict else function, input_signature=specs)
    tf.saved_model.save(module, str(directory), signatures={"look": module.look})
    return directory


def rewrite(directory, change):
    """Changes a SavedModel's graph in place."""
    path = directory / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(saved_model.meta_graphs[0])
    path.write_bytes(saved_model.SerializeToString())


def only_fault(directory) -> str:
    found = lint.faults(directory)
    assert len(found) == 1, found
    with pytest.raises(ValueError, match="not fit for TensorFlow Serving: ") as refused:
        lint.check(directory)
    assert found[0] in str(refused.value)
    return found[0]


def flat(tensor):
    return {"y": tf.reshape(tensor, [-1])}


def test_a_model_with_all_that_is_allowed(tmp_path):
    (tmp_path / "words.txt").write_text("a\nb\n")
    words = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(
            str(tmp_path / "words.txt"),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        1,
    )
    scale, zeros, more_zeros = (
        tf.Variable([1.0, 2.0]),
        tf.Variable([0.0] * 2),
        tf.Variable([0.0] * 2),
    )

    def look(x, word):
        tf.debugging.assert_equal(tf.shape(x), tf.shape(word))
        safe = tf.data.Dataset.from_tensors(x).map(tf.identity).ignore_errors()
        y = safe.get_single_element() * tf.reduce_sum(scale + zeros + more_zeros)
        y += tf.random.stateless_uniform(tf.shape(x), [1, 2])
        return {"y": tf.ensure_shape(y, [None]), "valid": y > 0, "place": words.lookup(word)}

    specs = FLOATS, tf.TensorSpec([None], tf.string, name="word")
    variables = {"scale": scale, "zeros": zeros, "more": more_zeros}
    model = save(tmp_path / "model", look, *specs, words=words, **variables)
    assert lint.faults(model) == []
    lint.check(model)


@tf.function(jit_compile=True)
def compiled(x):
    return 2 * x


def py_function(x):
    return tf.py_function(lambda v: v, [x], tf.float32)


def in_a_data_set(x):
    return tf.data.Dataset.from_tensors(x).map(py_function).get_single_element()


def in_a_branch(x):
    return tf.cond(x[0] > 0, lambda: compiled(x), lambda: x)


@pytest.mark.parametrize(
    ("function", "op", "reason"),
    [
        (py_function, "EagerPyFunc", "calls Python"),
        (lambda x: tf.numpy_function(np.sin, [x], tf.float32), "PyFunc", "calls Python"),
        (in_a_data_set, "EagerPyFunc", "calls Python"),
        (lambda x: tf.map_fn(py_function, x), "EagerPyFunc", "calls Python"),
        (compiled, "PartitionedCall", "demands XLA"),
        (in_a_branch, "PartitionedCall", "demands XLA"),
        (lambda x: x + tf.random.uniform([]), "RandomUniform", "another answer each time"),
        (lambda x: x + tf.random.normal([]), "RandomStandardNormal", "another answer each time"),
        (tf.random.shuffle, "RandomShuffle", "another answer each time"),
        (
            lambda x: tf.data.Dataset.from_tensors(x).shuffle(2).get_single_element(),
            "ShuffleDatasetV3",
            "another answer each time",
        ),
        (lambda x: x + len(tf.io.read_file("/etc/hostname").shape), "ReadFile", "files"),
    ],
    ids=range(11),
)
def test_forbidden_operations(tmp_path, function, op, reason):
    found = lint.faults(save(tmp_path, lambda x: flat(function(x))))
    named = [fault for fault in found if fault.startswith(f"look: {op} (node '")]
    assert named and reason in named[0], found
    with pytest.raises(ValueError, match=reason):
        lint.check(tmp_path)


def test_an_operation_that_tensorflow_has_not(tmp_path):
    """One of tensorflow_text's, though keras_hub has registered it in this process."""
    assert "tensorflow_text" in sys.modules
    save(tmp_path, lambda x: flat(tf.sin(x)))

    def change(meta_graph):
        nodes = (n for f in meta_graph.graph_def.library.function for n in f.node_def)
        next(node for node in nodes if node.op == "Sin").op = "SentencepieceOp"

    rewrite(tmp_path, change)
    fault = only_fault(tmp_path)
    assert fault.startswith("look: SentencepieceOp (node 'Sin' of function")
    assert fault.endswith("is no operation of TensorFlow's own")


def test_python_outside_the_signatures(tmp_path):
    """A function that no signature calls is in the graph all the same."""
    other = tf.function(lambda x: flat(py_function(x)), input_signature=[FLOATS])
    save(tmp_path, lambda x: flat(2 * x), other=other)
    assert only_fault(tmp_path).startswith("outside the signatures: EagerPyFunc (node ")


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_outputs_that_cannot_be_sent(tmp_path, dtype):
    save(tmp_path, lambda x: {"y": tf.cast(x, dtype)})
    fault = only_fault(tmp_path)
    assert fault.startswith("look: output 'y' (node ")
    assert fault.endswith(f" is {dtype.name}; it must be float32")


@pytest.mark.parametrize(
    ("function", "spec", "fault"),
    [
        (lambda x: {"y": x, "z": tf.reduce_sum(x)}, FLOATS, "output 'z' .* is a scalar"),
        (lambda x: {"y": x, "z": tf.ones([3])}, FLOATS, r"output 'z' .* has shape \(3,\), whose"),
        (
            lambda x: {"y": tf.reshape(x, [-1])},
            tf.TensorSpec([], tf.float32, name="x"),
            "input 'x' .* is a scalar",
        ),
        (
            lambda x: {"y": tf.reshape(x, [-1, 2])},
            tf.TensorSpec([4], tf.float32, name="x"),
            r"input 'x' .* has shape \(4,\), whose first dimension is not open",
        ),
        (
            lambda x: {"y": tf.reshape(x, [-1])},
            tf.TensorSpec(None, tf.float32, name="x"),
            "input 'x' .* has no known rank",
        ),
        (lambda x: 2 * x, FLOATS, "output 'output_0' .* was given no name"),
    ],
    ids=range(6),
)
def test_inputs_and_outputs_that_cannot_be_batched_or_told_apart(tmp_path, function, spec, fault):
    save(tmp_path, function, spec)
    with pytest.raises(ValueError, match=f"look: {fault}"):
        lint.check(tmp_path)


CROPS = tf.TensorSpec([None, 8, 8, 3], tf.uint8, name="image")
BOXES = tf.TensorSpec([None, 4], tf.float32, name="box")
FILES = tf.TensorSpec([None], tf.string, name="files")


def mean_of(crops):
    """As a network's last pooling: of any size."""
    return {"y": tf.reduce_mean(tf.cast(crops, tf.float32), [1, 2])[:, 0]}


def paired(files, boxes):
    tf.debugging.assert_equal(tf.shape(files)[0], tf.shape(boxes)[0])
    return {"y": tf.strings.length(files), "z": boxes[:, 0]}


@pytest.mark.parametrize(
    ("function", "specs", "fault"),
    [
        (
            mean_of,
            [CROPS],
            r"'image' is answered in shape \(2, 8, 8, 2\), and declared as \(None, 8,",
        ),
        (
            lambda x: mean_of(tf.ensure_shape(x, [None, None, None, 3])),
            [CROPS],
            r"'image' is answered in shape \(2, 8, 7, 3\)",
        ),
        (  # grey crops alone, which every convolution's normalisation broadcasts
            lambda x: mean_of(
                tf.ensure_shape(x, [None, 8, 8, None]) - tf.zeros([8, 8, 3], tf.uint8)
            ),
            [CROPS],
            r"'image' is answered in shape \(2, 8, 8, 1\)",
        ),
        (lambda box: {"y": box[:, 0] + box[:, 3]}, [BOXES], r"'box' is answered in shape \(2, 5\)"),
        (
            lambda box: {"y": tf.reshape(box, [-1, 4])[:, 0]},
            [BOXES],
            r"in shape \(2, 1\)|\(2, 4, 1\)",
        ),
        (lambda s: {"y": tf.strings.length(s)}, [FILES], r"'files' is answered in shape \(\)"),
        (
            lambda s, b: {
                "y": tf.strings.length(tf.ensure_shape(s, [None])),
                "z": b[:, 3] + b[:, 0],
            },
            [FILES, BOXES],
            r"'box' is answered in shape \(2, 5\), beside 2 rows of the others",
        ),
        (
            lambda s, b: {
                "y": tf.strings.length(tf.ensure_shape(s, [None])),
                "z": tf.ensure_shape(b, [None, 4])[:, 0],
            },
            [FILES, BOXES],
            r"'box' is answered in shape \(3, 4\), beside 2 rows of the others",
        ),
    ],
    ids=["channels", "size", "grey", "width", "rank", "scalar", "two", "rows"],
)
def test_signatures_that_answer_wrong_shapes(tmp_path, function, specs, fault):
    found = lint.faults(save(tmp_path, function, *specs, strict=False))
    assert len(found) >= 1 and all(line.startswith("look: input '") for line in found)
    assert any(re.search(fault, line) for line in found), found
    assert "export again" in found[0]
    with pytest.raises(ValueError, match="not fit for TensorFlow Serving: look: input"):
        lint.check(tmp_path)


def test_signatures_that_refuse_wrong_shapes(tmp_path):
    assert lint.faults(save(tmp_path / "crops", mean_of, CROPS)) == []
    assert lint.faults(save(tmp_path / "pairs", paired, FILES, BOXES)) == []
    open_sides = tf.TensorSpec([None, None, 2], tf.float32, name="points")
    points = save(tmp_path / "open", lambda x: {"y": tf.reduce_sum(x, [1, 2])}, open_sides)
    assert lint.faults(points) == []


def test_signatures_that_cannot_be_tried(tmp_path):
    huge = tf.TensorSpec([None, 2**40], tf.uint8, name="x")
    (fault,) = lint.faults(save(tmp_path / "huge", lambda x: {"y": x[:, 0]}, huge))
    assert fault == "look: its inputs are too large to be tried"

    (fault,) = lint.faults(
        save(
            tmp_path / "fragile",
            lambda s: {"y": tf.strings.to_number(s, tf.float32)},
            FILES,
        )
    )
    assert fault.startswith(
        "look: it refuses zeros in the shapes that it declares (StringToNumberOp"
    )


def test_variables_stored_twice(tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    one, other = tf.Variable(values), tf.Variable(values)
    save(tmp_path, lambda x: flat(x[:, None, None] * one + other), one=one, other=other)
    fault = only_fault(tmp_path)
    assert fault.startswith("80 of 160 bytes of variables are copies: other/")
    assert "equals one/" in fault


def test_a_few_variables_may_be_alike(tmp_path):
    large = tf.Variable(np.random.default_rng(0).normal(size=[50, 20]).astype(np.float32))
    one, other = tf.Variable([1.0, 2.0]), tf.Variable([1.0, 2.0])
    variables = {"large": large, "one": one, "other": other}
    save(tmp_path, lambda x: flat(x[:, None] * one + other + large[0, 0]), **variables)
    assert lint.faults(tmp_path) == []


def test_variables_that_no_signature_uses(tmp_path):
    one, slot = tf.Variable([1.0, 2.0]), tf.Variable(tf.range(100.0))
    save(tmp_path, lambda x: flat(x[:, None] * one), one=one, slot=slot)
    assert only_fault(tmp_path).startswith("408 bytes of variables are stored, of which")
    assert only_fault(tmp_path).endswith("the signatures use 8")


@pytest.mark.parametrize("name", ["words.txt", "../../words.txt"])
def test_files_outside_the_model(tmp_path, name):
    (tmp_path / "words.txt").write_text("a\nb\n")
    asset = tf.saved_model.Asset(str(tmp_path / "words.txt"))
    model = save(tmp_path / "model", lambda x: flat(x), asset=asset)
    assert lint.faults(model) == []

    def change(meta_graph):
        meta_graph.asset_file_def[0].filename = name

    rewrite(model, change)
    shutil.rmtree(model / "assets")
    assert f"its file '{name}' is not in" in only_fault(model)


def test_what_is_no_saved_model(tmp_path):
    with pytest.raises(ValueError, match=r"holds no saved_model\.pb"):
        lint.faults(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\xffjunk")
    with pytest.raises(ValueError, match="is no SavedModel"):
        lint.faults(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match="no graph with the tag 'serve'"):
        lint.faults(tmp_path)


def test_without_a_signature_and_with_damaged_variables(tmp_path):
    module = tf.Module()
    module.x = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, str(tmp_path))
    assert "it has no signature" in lint.faults(tmp_path)
    (tmp_path / "variables/variables.index").write_bytes(b"junk" * 50)
    with pytest.raises(ValueError, match=r"variables in .* cannot be read"):
        lint.faults(tmp_path)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["graph_lint", str(save(tmp_path / "a", lambda x: flat(x)))])
    assert graph_lint.main() == 0
    assert "fit for TensorFlow Serving" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["graph_lint", str(save(tmp_path / "b", lambda x: 2 * x))])
    assert graph_lint.main() == 1
    assert "look: output 'output_0'" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["graph_lint", str(tmp_path)])
    with pytest.raises(ValueError, match="holds no saved_model"):
        graph_lint.main()
