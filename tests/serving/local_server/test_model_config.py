"""The configuration files of tensorflow_model_server, and following them while they change."""

import shutil
from pathlib import Path

import pytest
from fake_server import save_toy

from serving.local_server.metrics import Metrics
from serving.local_server.model_config import (
    METRICS_PATH,
    ModelConfig,
    VersionPolicy,
    read_metrics_path,
    read_models,
)
from serving.local_server.served_models import ServedModels

# --- what the files say


def write(path, text):
    path.write_text(text)
    return path


def config(fields, name="wflw"):
    return (
        f'model_config_list {{ config {{ name: "{name}" base_path: "/models/{name}" '
        f'model_platform: "tensorflow" {fields} }} }}'
    )


TWICE = '{ config { name: "wflw" base_path: "/a" model_platform: "tensorflow" } '


@pytest.mark.parametrize(
    ("fields", "policy"),
    [
        ("", VersionPolicy(latest=1)),
        ("model_version_policy { latest {} }", VersionPolicy(latest=1)),
        ("model_version_policy { latest { num_versions: 3 } }", VersionPolicy(latest=3)),
        ("model_version_policy { all {} }", VersionPolicy(latest=None)),
        (
            "model_version_policy { specific { versions: 4 versions: 2 } }",
            VersionPolicy(specific=frozenset({2, 4})),
        ),
    ],
)
def test_a_models_versions_are_chosen(tmp_path, fields, policy):
    (model,) = read_models(write(tmp_path / "models.config", config(fields)))
    assert model.name == "wflw" and str(model.base_path) == "/models/wflw" and model.labels == {}
    assert model.policy == policy


def test_what_a_policy_wants():
    found = {1, 2, 5, 9}
    assert VersionPolicy().wanted(found) == {9}
    assert VersionPolicy(latest=3).wanted(found) == {2, 5, 9}
    assert VersionPolicy(latest=None).wanted(found) == found
    assert VersionPolicy(specific=frozenset({2, 7})).wanted(found) == {2}
    assert VersionPolicy().wanted(set()) == set()


def test_several_models_and_labels_with_commas_and_comments(tmp_path):
    text = """
        # as tensorflow_model_server reads it too
        model_config_list: {
          config: { name: "a", base_path: "/a", model_platform: "tensorflow",
                    version_labels { key: "stable" value: 1 }
                    version_labels { key: "canary", value: 2 } },
          config: { name: "b", base_path: "/b", model_platform: "tensorflow" },
        }"""
    a, b = read_models(write(tmp_path / "models.config", text))
    assert a.labels == {"stable": 1, "canary": 2} and b.name == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no model_config_list"),
        ("model_config_list {", "is no ModelServerConfig"),
        ("model_config_list { configs {} }", 'has no field named "configs"'),
        ("\udcff", "is no ModelServerConfig"),
        ("custom_model_config { }", "a custom model config is not supported"),
        ("model_config_list { config { } }", "name '' must be there"),
        (config("", name="a/b"), "name 'a/b' must be there, and have no /"),
        (
            'model_config_list { config { name: "a" base_path: "/a" model_platform: "caffe" } }',
            "model a requests unsupported platform caffe",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" } }',
            "model a has no model_platform",
        ),
        (
            'model_config_list { config { name: "a" base_path: "a" model_platform: "tensorflow" } }',
            "expected model a to have an absolute path; got base_path 'a'",
        ),
        (
            config("").replace("/models", r"/\000models"),
            r"base_path '/\x00models/wflw' of model wflw has a null character",
        ),
        (config("").replace("{", TWICE, 1), "Illegal to list model wflw multiple times"),
        (
            config("model_version_policy { specific {} }"),
            "asks for specific versions and lists none",
        ),
        (config('version_labels { key: "" value: 1 }'), "labels of model wflw must not be empty"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path, text, message):
    path = tmp_path / "models.config"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError) as caught:
        read_models(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("prometheus_config { enable: true }", METRICS_PATH),
        ('prometheus_config { enable: true path: "/metrics" }', "/metrics"),
        ('prometheus_config { path: "/metrics" }', None),
        ("", None),
    ],
)
def test_where_the_metrics_are(tmp_path, text, path):
    assert read_metrics_path(write(tmp_path / "monitoring.config", text)) == path


@pytest.mark.parametrize("path", ["metrics", "/v1/metrics"])
def test_metrics_cannot_be_everywhere(tmp_path, path):
    text = f'prometheus_config {{ enable: true path: "{path}" }}'
    with pytest.raises(ValueError, match="must begin with / and not be below /v1/"):
        read_metrics_path(write(tmp_path / "monitoring.config", text))


# --- following them


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    directory = tmp_path_factory.mktemp("toy") / "1"
    save_toy(directory)
    return directory


@pytest.fixture
def base(toy, tmp_path):
    """A model's directory with the versions 1 and 2."""
    for version in "12":
        shutil.copytree(toy, tmp_path / "wflw" / version)
    return tmp_path / "wflw"


def model(base, versions=None, labels=None, name="wflw"):
    policy = VersionPolicy(specific=frozenset(versions)) if versions else VersionPolicy()
    return ModelConfig(name, base, policy, labels or {})


def loaded(models, name="wflw"):
    return {status.version for status in models[name].statuses() if status.state == "AVAILABLE"}


def test_versions_and_labels_follow_the_configuration(base, caplog):
    configs = [model(base)]
    models = ServedModels(configs, reread=lambda: configs, metrics=Metrics())
    assert list(models) == ["wflw"] and loaded(models) == set()
    models["wflw"].poll()
    assert loaded(models) == {2}

    configs = [model(base, [1, 2], {"stable": 2})]
    models.reload()
    models["wflw"].poll()
    assert loaded(models) == {1, 2} and models["wflw"].labels == {"stable": 2}
    assert models["wflw"].serving == 2

    # Back to 1: the label moves to a version that serves, and then 2 may go.
    configs = [model(base, [1, 2], {"stable": 1})]
    models.reload()
    configs = [model(base, [1], {"stable": 1})]
    models.reload()
    models["wflw"].poll()
    assert loaded(models) == {1} and models["wflw"].labels == {"stable": 1}

    configs = []
    models.reload()
    assert len(models) == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_new_model_is_loaded_before_it_is_there(base):
    configs = []
    models = ServedModels(configs, reread=lambda: configs, metrics=Metrics())
    configs = [model(base, name="other")]
    models.reload()
    assert loaded(models, "other") == {2}


def test_a_configuration_that_is_no_good_changes_nothing(base, caplog):
    def reread():
        raise ValueError("models.config is no ModelServerConfig")

    models = ServedModels([model(base)], reread=reread, metrics=Metrics())
    models["wflw"].poll()
    for _ in range(3):
        models.reload()
    assert loaded(models) == {2}
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage().endswith("stays as it was: models.config is no ModelServerConfig")


def test_labels_are_for_versions_that_serve(base, caplog):
    message = "Request to assign label to version 2 of model wflw, which is not currently available"
    labelled = [model(base, [1, 2], {"stable": 2})]
    with pytest.raises(ValueError, match=message):
        ServedModels(labelled, metrics=Metrics())

    configs = labelled
    models = ServedModels(labelled, reread=lambda: configs, labels_may_wait=True, metrics=Metrics())
    assert models["wflw"].labels == {"stable": 2} and models["wflw"].get(2) is None
    models["wflw"].poll()
    assert models["wflw"].get(2) is not None

    # A label that is in use must not move to a version that is not there; a new one may wait.
    configs = [model(base, [1, 2], {"stable": 3})]
    models.reload()
    assert models["wflw"].labels == {"stable": 2}
    assert "Request to assign label to version 3 of model wflw" in caplog.text
    configs = [model(base, [1, 2], {"stable": 2, "next": 3})]
    models.reload()
    assert models["wflw"].labels == {"stable": 2, "next": 3}


def unreadable(monkeypatch, directory, error):
    """Lets looks at what a directory holds fail, as for a user who may list it and no more."""
    is_dir = Path.is_dir

    def fail_there(path):
        if path.parent == directory:
            raise error
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", fail_there)


def errors(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def test_a_new_model_that_cannot_be_looked_at_changes_nothing(base, tmp_path, caplog, monkeypatch):
    configs = [model(base)]
    models = ServedModels(configs, reread=lambda: configs, metrics=Metrics())
    models["wflw"].poll()
    (tmp_path / "other" / "1").mkdir(parents=True)
    unreadable(monkeypatch, tmp_path / "other", PermissionError(13, "Permission denied"))
    configs = [model(base), model(tmp_path / "other", name="other")]
    for _ in range(3):
        assert models.reload() is False
    assert list(models) == ["wflw"] and loaded(models) == {2}
    (message,) = errors(caplog)
    assert "the configuration stays as it was: [Errno 13] Permission denied" in message
    configs = [model(base), model(tmp_path / "nowhere", name="other")]  # may come yet
    assert models.reload() is True and list(models) == ["wflw", "other"]


def test_a_directory_that_cannot_be_read_for_a_while_unloads_nothing(base, caplog):
    models = ServedModels([model(base, [1, 2])], metrics=Metrics())
    models["wflw"].poll()
    for _ in range(2):
        base.rename(base.with_name("away"))
        for _ in range(3):
            models["wflw"].poll()
            assert loaded(models) == {1, 2}
        base.with_name("away").rename(base)
        models["wflw"].poll()
        assert loaded(models) == {1, 2}
    assert len(errors(caplog)) == 2 and "what is loaded stays" in errors(caplog)[0]
    shutil.rmtree(base / "2")
    models["wflw"].poll()
    assert loaded(models) == {1}


def test_versions_that_cannot_be_read_for_a_while_stay(base, caplog, monkeypatch):
    models = ServedModels([model(base)], metrics=Metrics())
    models["wflw"].poll()
    with monkeypatch.context() as context:
        unreadable(context, base, OSError(5, "Input/output error"))
        models["wflw"].poll()
    assert loaded(models) == {2} and "Input/output error" in caplog.text


def test_a_version_beyond_64_bits_is_none(base):
    shutil.copytree(base / "1", base / "99999999999999999999")
    shutil.copytree(base / "1", base / str(2**63))
    models = ServedModels([model(base)], metrics=Metrics())
    models["wflw"].poll()
    assert models["wflw"].serving == 2
    (base / "1").rename(base / str(2**63 - 1))
    models["wflw"].poll()
    assert models["wflw"].serving == 2**63 - 1
