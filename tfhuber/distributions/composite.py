"""Distributions as composite tensors: arguments and results of `tf.function`, `tf.cond` and `tf.nest`."""

from typing import Any

import tensorflow as tf

__all__ = ["ParametersSpec"]


class ParametersSpec(tf.TypeSpec):
    """The structure of a distribution: the specs of its tensors and variables, and its other arguments.

    TensorFlow Probability's own `AutoCompositeTensorDistribution` reads every argument of the
    constructor from the property of that name; here `loc` is also the answer where `nu` was given.
    A subclass says in `value_type` whose parameters these are.
    """

    def __init__(self, tensors: dict[str, tf.TypeSpec], others: dict[str, Any]):
        self._tensors, self._others = tensors, others

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> "ParametersSpec":
        """Return the structure of a distribution from the arguments that make it."""
        others = {k: v for k, v in parameters.items() if isinstance(v, bool | float | None)}
        tensors = {k: tf.type_spec_from_value(v) for k, v in parameters.items() if k not in others}
        return cls(tensors, others)

    @property
    def _component_specs(self) -> dict[str, tf.TypeSpec]:
        return self._tensors

    def _serialize(self) -> tuple[dict[str, tf.TypeSpec], dict[str, Any]]:
        return self._tensors, self._others

    def _to_components(self, value: Any) -> dict[str, Any]:
        return {name: value.composite_parameters[name] for name in self._tensors}

    def _from_components(self, components: dict[str, Any]) -> Any:
        return self.value_type(**components, **self._others)
