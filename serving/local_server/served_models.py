"""The models that a server serves, by name, as its configuration says and changes."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

from serving.local_server.metrics import Metrics
from serving.local_server.model_config import ModelConfig
from serving.local_server.versions import ModelVersions
from tfhuber.saved_model import versions

__all__ = ["ServedModels"]

logger = logging.getLogger(__name__)


class ServedModels(Mapping[str, ModelVersions]):
    """A mapping of models by name; safe to read from any thread, to change and `poll` from one at a time.

    As in TensorFlow Serving, a label may only be given to a version that serves already. Where that is
    relaxed, it still holds for a label that moves from one version to another.

    Args:
      configs: what to serve at first.
      reread: returns what to serve now; called by `reload`. None where nothing changes.
      labels_may_wait: whether a new label may name a version that is not there yet.
      warm_up: whether versions replay their warm-up requests when they are loaded.
      metrics: what counts loads and warm-ups.

    Raises:
      ValueError: a label names a version that does not serve.
    """

    def __init__(
        self,
        configs: Iterable[ModelConfig],
        *,
        reread: Callable[[], Iterable[ModelConfig]] | None = None,
        labels_may_wait: bool = False,
        warm_up: bool = True,
        metrics: Metrics,
    ):
        self._reread = reread
        self._labels_may_wait = labels_may_wait
        self._warm_up = warm_up
        self._metrics = metrics
        self._warned = ""
        self._models: dict[str, ModelVersions] = {}  # replaced, never changed
        self._configs: list[ModelConfig] = []
        self._check_labels(configs)
        self._apply(configs, poll_new=False)

    def __getitem__(self, name: str) -> ModelVersions:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def reload(self) -> bool:
        """Take over what the configuration says now; one that is no good changes nothing.

        New models have been looked at, and their versions loaded, when this returns.

        Returns:
          Whether anything has changed.
        """
        if self._reread is None:
            return False
        try:
            configs = list(self._reread())
            if changed := configs != self._configs:
                self._check_labels(configs)
                self._check_base_paths(configs)
        except (OSError, ValueError) as error:
            if str(error) != self._warned:
                logger.error("the configuration stays as it was: %s", error)
            self._warned = str(error)
            return False
        self._warned = ""
        if changed:
            self._apply(configs, poll_new=True)
            logger.info("serving as configured now: %s", ", ".join(self._models) or "nothing")
        return changed

    def _apply(self, configs: Iterable[ModelConfig], *, poll_new: bool) -> None:
        models = {}
        for config in configs:
            model = self._models.get(config.name)
            if model is None or model.base_path != config.base_path:
                model = ModelVersions(
                    config.name, config.base_path, warm_up=self._warm_up, metrics=self._metrics
                )
                model.configure(config.policy, config.labels)
                if poll_new:
                    model.poll()
            else:
                model.configure(config.policy, config.labels)
            models[config.name] = model
        self._models, self._configs = models, list(configs)

    def _check_base_paths(self, configs: Iterable[ModelConfig]) -> None:
        """Raise OSError if a new directory is there but cannot be read; a missing one is waited for."""
        known = {model.base_path for model in self._models.values()}
        for config in configs:
            if config.base_path not in known and config.base_path.exists():
                versions.numbered(config.base_path)

    def _check_labels(self, configs: Iterable[ModelConfig]) -> None:
        for config in configs:
            model = self._models.get(config.name)
            for label, version in config.labels.items():
                serves = model is not None and model.get(version) is not None
                moves = model is not None and model.labels.get(label, version) != version
                if not serves and (moves or not self._labels_may_wait):
                    remedy = "" if moves else "; a flag allows that for new labels, see --help"
                    raise ValueError(
                        f"Request to assign label to version {version} of model {config.name}, "
                        f"which is not currently available for inference{remedy}"
                    )
