"""The configuration files of tensorflow_model_server, read by the same protocol buffers.

`--model_config_file` holds a `ModelServerConfig`, `--monitoring_config_file` a `MonitoringConfig`, both
in protocol buffers' text format. What TensorFlow Serving refuses is refused here, in its words.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message
from tensorflow_serving.config import model_server_config_pb2

__all__ = [
    "METRICS_PATH",
    "ModelConfig",
    "VersionPolicy",
    "check_name",
    "read_metrics_path",
    "read_models",
]

METRICS_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions in a model's directory are served.

    Attributes:
      latest: how many of the highest numbers; None for all.
      specific: these alone, where they are there; None for whatever `latest` says.
    """

    latest: int | None = 1
    specific: frozenset[int] | None = None

    def wanted(self, found: Iterable[int]) -> set[int]:
        """Return those of the found versions that are to be served."""
        if self.specific is not None:
            return set(self.specific.intersection(found))
        return set(sorted(found, reverse=True)[: self.latest])


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve.

    Attributes:
      name: its name in requests.
      base_path: the directory whose numbered subdirectories are its versions.
      policy: which of them.
      labels: versions by label.
    """

    name: str
    base_path: Path
    policy: VersionPolicy = field(default_factory=VersionPolicy)
    labels: Mapping[str, int] = field(default_factory=dict)


def check_name(name: str) -> None:
    """Raise ValueError unless a model of this name could be asked for."""
    if not name or any(character in name for character in "/:"):
        raise ValueError(f"name {name!r} must be there, and have no / and no : in it")


def read_models(path: Path) -> list[ModelConfig]:
    """Return the models in a `ModelServerConfig` file.

    Example:
      model_config_list {
        config {
          name: "wflw"
          base_path: "/models/wflw"
          model_platform: "tensorflow"
          model_version_policy { specific { versions: 1 versions: 2 } }
          version_labels { key: "stable" value: 1 }
          version_labels { key: "canary" value: 2 }
        }
      }

    Raises:
      OSError: it cannot be read.
      ValueError: it is not in this format, or asks for what is not possible.
    """
    config = _parse(path, model_server_config_pb2.ModelServerConfig())
    if config.HasField("custom_model_config"):
        raise ValueError(f"{path}: a custom model config is not supported")
    if not config.HasField("model_config_list"):
        raise ValueError(f"{path} holds no model_config_list")
    models = {}
    for model in config.model_config_list.config:
        try:
            if model.name in models:
                raise ValueError(f"Illegal to list model {model.name} multiple times")
            models[model.name] = _model(model)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return list(models.values())


def read_metrics_path(path: Path) -> str | None:
    """Return where a `MonitoringConfig` file wants the metrics served; None for nowhere.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not in this format, or the path does not begin with a slash.
    """
    config = _parse(path, _monitoring_config()).prometheus_config
    where = config.path or METRICS_PATH
    if not where.startswith("/") or where.lower().startswith("/v1/"):
        raise ValueError(f"{path}: path {where!r} must begin with / and not be below /v1/")
    return where if config.enable else None


def _monitoring_config() -> Message:
    """Return an empty `MonitoringConfig`, the one message that tensorflow-serving-api leaves out."""
    field_types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="monitoring_config", syntax="proto3")
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type=field_types.TYPE_BOOL)
    prometheus.field.add(name="path", number=2, type=field_types.TYPE_STRING)
    file.message_type.add(name="MonitoringConfig").field.add(
        name="prometheus_config",
        number=1,
        type=field_types.TYPE_MESSAGE,
        type_name="PrometheusConfig",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("MonitoringConfig"))()


def _parse(path: Path, message: Message) -> Message:
    text = path.read_bytes()
    try:
        return text_format.Parse(text.decode(), message)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no {message.DESCRIPTOR.name}: {error}") from None


def _model(config: Message) -> ModelConfig:
    """Return this module's `ModelConfig` for a parsed message of that name, checked."""
    name = config.name
    check_name(name)
    if not config.model_platform:
        raise ValueError(f"model {name} has no model_platform; say model_platform: 'tensorflow'")
    if config.model_platform != "tensorflow":
        raise ValueError(f"model {name} requests unsupported platform {config.model_platform}")
    base_path = Path(config.base_path)
    if not base_path.is_absolute():
        raise ValueError(
            f"expected model {name} to have an absolute path; got base_path {config.base_path!r}"
        )
    if "\0" in config.base_path:
        raise ValueError(f"base_path {config.base_path!r} of model {name} has a null character")
    labels = dict(config.version_labels)
    if not all(labels) or any(character in label for label in labels for character in "/:"):
        raise ValueError(f"labels of model {name} must not be empty nor have / or : in them")
    return ModelConfig(name, base_path, _policy(config.model_version_policy, name), labels)


def _policy(policy: Message, name: str) -> VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy(latest=None)
        case "specific":
            if not policy.specific.versions:
                raise ValueError(f"model {name} asks for specific versions and lists none")
            return VersionPolicy(specific=frozenset(policy.specific.versions))
        case _:
            return VersionPolicy(latest=max(policy.latest.num_versions, 1))
