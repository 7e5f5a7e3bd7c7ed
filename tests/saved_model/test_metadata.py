"""A model's metadata are read by one parser, which refuses what makes no sense."""

import pytest

from tfhuber.console.files import write_json
from tfhuber.distributions.radial import radial_energy
from tfhuber.geometry.box_square import SQUARE_RULES
from tfhuber.saved_model.metadata import METADATA, ModelMetadata, uncertainty_quantiles

VALUES = {
    "format": 1,
    "landmark_set": {"names": ["a", "b"], "edges": [[0, 1]]},
    "family": "charbonnier",
    "delta": 1.5,
    "kappa": 7.25,
    "square": "longest",
    "metrics": None,
}


def write_metadata(directory, values):
    (directory / "assets.extra").mkdir()
    write_json(directory / METADATA, values)


def test_metadata_are_read_beside_the_model(tmp_path):
    write_metadata(tmp_path, VALUES)
    found = ModelMetadata.read(tmp_path)
    assert found == ModelMetadata.parse(VALUES)
    assert found == ModelMetadata(["a", "b"], [(0, 1)], "charbonnier", 1.5, 7.25, "longest")


def test_exports_of_before_have_the_signature_tta():
    assert ModelMetadata.parse(VALUES).image_signature(True) == "tta"
    without = ModelMetadata.parse(VALUES | {"tta": False})
    assert without.image_signature(False) == "serving_default"
    with pytest.raises(ValueError, match="--tta needs a model that was trained on mirror images"):
        without.image_signature(True)


@pytest.mark.parametrize(
    ("family", "delta"),
    [("huber", 0.3), ("huber", 1.0), ("gauss", 2.0), ("laplace", 1.0), ("charbonnier", 1.0)],
)
def test_kappa_of_an_export_of_before_is_computed(family, delta):
    """As `tfhuber.distributions` has it, with which the model was exported."""
    values = {name: value for name, value in VALUES.items() if name != "kappa"}
    found = ModelMetadata.parse(values | {"family": family, "delta": delta})
    assert found.kappa == pytest.approx(float(radial_energy(family, delta).kappa(2)), rel=1e-9)


def test_the_rule_for_boxes_is_none_where_it_is_unknown():
    for rule in SQUARE_RULES:
        assert ModelMetadata.parse(VALUES | {"square": rule}).square == rule
    for rule in ("round", ["longest"], None):
        assert ModelMetadata.parse(VALUES | {"square": rule}).square is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (VALUES | {"family": "cauchy"}, "unknown family, 'cauchy'"),
        (VALUES | {"family": None}, "unknown family, None"),
        (VALUES | {"delta": "wide"}, "delta must be positive and finite, got 'wide'"),
        (VALUES | {"delta": float("nan")}, "delta must be positive and finite, got nan"),
        (VALUES | {"delta": 0}, "delta must be positive and finite, got 0"),
        (VALUES | {"kappa": -1.0}, "kappa must be positive and finite, got -1.0"),
        (VALUES | {"kappa": float("inf")}, "kappa must be positive and finite, got inf"),
        (VALUES | {"landmark_set": {"names": ["a"], "edges": [[0, 1]]}}, "edges join landmarks"),
        (VALUES | {"landmark_set": {"names": ["a"], "edges": [[0]]}}, "not laid out as metadata"),
        (VALUES | {"landmark_set": {"names": [1, 2], "edges": []}}, "names .* must be strings"),
        (VALUES | {"landmark_set": 3}, "not laid out as metadata"),
        ([], "not laid out as metadata"),
        ({}, "it has no 'landmark_set'"),
    ],
    ids=range(13),
)
def test_metadata_that_make_no_sense(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        ModelMetadata.parse(values)
    write_metadata(tmp_path, values)
    with pytest.raises(ValueError, match=rf"model\.json .*{message}.*export the model again"):
        ModelMetadata.read(tmp_path)


def test_no_metadata(tmp_path):
    with pytest.raises(ValueError, match=r"model\.json cannot be read .*export the model again"):
        ModelMetadata.read(tmp_path)


def test_quantiles_of_the_uncertainty():
    reference = {"levels": [0.5, 0.95], "values": [0.01, 0.03]}
    assert uncertainty_quantiles({"uncertainty": reference}) == {0.5: 0.01, 0.95: 0.03}
    for nothing in ({}, {"uncertainty": None}, {"uncertainty": {"levels": []}}):
        assert uncertainty_quantiles(nothing) == {}


@pytest.mark.parametrize(
    "reference", [3, {"levels": [0.5], "values": []}, {"levels": ["low"], "values": [1.0]}]
)
def test_quantiles_that_make_no_sense(reference):
    with pytest.raises(ValueError, match="reference of uncertainty makes no sense"):
        uncertainty_quantiles({"uncertainty": reference})
