"""A step whose loss, gradient or new weights are not finite: found, kept for inspection, never saved."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import tensorflow as tf
from PIL import Image

from tfhuber.drawing import overlay
from tfhuber.training.state import State
from tfhuber.training.step import Outcome
from tfhuber.training.strategy import is_chief

__all__ = ["FiniteGuard", "is_fault"]

_OUTPUTS = ("nu", "precision_factor", "log_det")
# A contact picture of so many examples, those at fault first, can still be looked at.
_MOST_PICTURES, _COLUMNS, _TILE = 48, 8, 200


def is_fault(loss: float, gradient_norm: float, skipped: bool = False) -> bool:
    """Return whether a step with these numbers ends the training; one that float16 skips does not."""
    return not (math.isfinite(loss) and (math.isfinite(gradient_norm) or skipped))


class FiniteGuard:
    """A check of all steps, made now and then, that ends training at the first that is not finite.

    To fetch a number from a GPU at every step would stall it, so outcomes are kept by reference until
    `check`. The batch at fault is not kept: it is made again from the number of its step.

    Args:
      run: the run's directory.
      state: what is trained.
      batch_of_step: makes the whole batch of a step again.
      edges: pairs of landmarks to join where labels are drawn.
      strategy: that took the steps.
    """

    def __init__(
        self,
        run: Path,
        state: State,
        batch_of_step: Callable[[int], dict[str, tf.Tensor]],
        edges: Sequence[tuple[int, int]],
        strategy: tf.distribute.Strategy,
    ):
        self._run, self._state, self._strategy = run, state, strategy
        self._batch_of_step, self._edges = batch_of_step, edges
        self._outcomes: dict[int, Outcome] = {}

    def record(self, step: int, outcome: Outcome) -> None:
        """Keep what `training_step` returned of a step for the next check."""
        self._outcomes[step] = outcome

    def check(self, weights: bool) -> None:
        """Check all steps since the last check; all processes must come here after the same step.

        Args:
          weights: whether to check all weights and moments as well, because they will be saved.

        Raises:
          ValueError: naming the first step at fault, its examples and the files that its batch is in.
        """
        for step, outcome in self._outcomes.items():
            loss, norm = float(outcome["loss"]), float(outcome["gradient_norm"])
            if is_fault(loss, norm, bool(outcome["skipped"])):
                self._stop(
                    step, outcome, f"the loss is {loss} and its gradient {norm} at step {step}"
                )
        if weights and (names := _not_finite(self._state)):
            self._stop(step, outcome, f"step {step} left values not finite in {_some(names, 2)}")
        self._outcomes.clear()

    def _stop(self, step: int, outcome: Outcome, fault: str) -> NoReturn:
        seen = {name: outcome["outputs"][name] for name in _OUTPUTS}
        seen["example_loss"] = outcome["example_loss"]
        seen = {name: self._strategy.gather(value, axis=0) for name, value in seen.items()}
        tensors = {**self._batch_of_step(step), **seen}
        values = {name: value.numpy() for name, value in tensors.items()}
        values["id"] = np.array([name.decode(errors="replace") for name in values["id"]])
        values |= {name: outcome[name].numpy() for name in ("loss", "gradient_norm")}
        at_fault = values["id"][~np.isfinite(values["example_loss"])].tolist()
        raise ValueError(
            "; ".join(
                [
                    fault,
                    self._save(step, values),
                    f"examples whose own loss is not finite: {_some(at_fault)}",
                    _last_checkpoint(self._run),
                    "lower train.learning_rate or look at the labels",
                ]
            )
        )

    def _save(self, step: int, values: dict) -> str:
        """Write the files, in the chief, and return what there is to say of them."""
        path = self._run / "not_finite" / f"step-{step}.npz"
        picture = path.with_suffix(".png")
        if is_chief(self._strategy):
            try:
                path.parent.mkdir(exist_ok=True)
                np.savez(path, **values)
                overlay.save_image(self._picture(step, values), picture)
            except OSError as error:
                return f"its batch cannot be written ({error})"
        return f"its batch is in {path} and drawn in {picture}"

    def _picture(self, step: int, values: dict) -> Image.Image:
        """Return the images of a batch with their labels, those at fault first."""
        loss = values["example_loss"]
        order = np.argsort(np.isfinite(loss), kind="stable")[:_MOST_PICTURES]
        rows = {}
        for start in range(0, len(order), _COLUMNS):
            end = min(start + _COLUMNS, len(order))
            rows[f"{start + 1} to {end}"] = [
                (self._labelled(values, i), f"{loss[i]:.4g}  {values['id'][i][-20:]}")
                for i in order[start:end]
            ]
        title = f"The batch of step {step}: loss and example, labels drawn"
        return overlay.evaluation_sheet(rows, title=title, tile=_TILE)

    def _labelled(self, values: dict, i: int) -> Image.Image:
        """Return the image of example i with its labels."""
        image = np.nan_to_num(values["image"][i]).clip(0, 255).astype(np.uint8)
        labels = np.where(values["weights"][i][:, None] > 0, values["landmarks"][i], np.nan)
        return overlay.draw_overlay(
            Image.fromarray(image),
            labels,
            np.full((len(labels), 2, 2), np.nan),
            edges=self._edges,
            min_side=_TILE,
            max_side=_TILE,
            legend=False,
        )


def _not_finite(state: State) -> list[str]:
    """Return which variables, of those that checkpoints hold, have a number that is not finite."""
    models = [state.model] if state.average is None else [state.model, state.average]
    variables = [*state.optimizer.variables, *(v for model in models for v in model.weights)]
    return [v.path for v in variables if not np.isfinite(v.numpy()).all()]


def _some(names: list[str], most: int = 5) -> str:
    """Return the first names as text, and how many more there are."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more]) or "none"


def _last_checkpoint(run: Path) -> str:
    last = tf.train.latest_checkpoint(run / "latest")
    return f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
