"""A step whose loss, gradient or new weights are not finite: found, kept for inspection, never saved."""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from tfhuber.config.schema import Config
from tfhuber.data import dataset
from tfhuber.drawing import overlay
from tfhuber.training.state import State
from tfhuber.training.strategy import is_chief

__all__ = ["Guard", "is_fault"]

_OUTPUTS = ("nu", "precision_factor", "log_det")
# A contact picture of so many examples, those at fault first, can still be looked at.
_MOST_PICTURES, _COLUMNS, _TILE = 48, 8, 200


def is_fault(loss: float, gradient_norm: float, skipped: bool = False) -> bool:
    """Whether a step with these numbers ends the training; one that float16 skips does not."""
    return not (math.isfinite(loss) and (math.isfinite(gradient_norm) or skipped))


class Guard:
    """Looks at the reports of all steps, now and then, and stops training at the first that is at fault.

    To fetch a number from a GPU at every step would stall it, so reports are held by reference until
    `check`. The batch at fault is not held: `inputs` makes it again from the number of its step.

    Args:
      run: the run's directory.
      state: that is trained.
      split: `inputs.Split` that it is trained on.
      config: of the run.
      strategy: that made the steps.
    """

    def __init__(
        self,
        run: Path,
        state: State,
        split: dataset.Split,
        config: Config,
        strategy: tf.distribute.Strategy,
    ):
        self._run, self._state, self._split = run, state, split
        self._config, self._strategy = config, strategy
        self._reports: dict[int, dict] = {}

    def hold(self, step: int, report: dict) -> None:
        """Takes what `loop.training_step` reported of a step."""
        self._reports[step] = report

    def check(self, weights: bool) -> None:
        """Looks at all that is held; all processes must come here after the same step.

        Args:
          weights: whether to look at all weights and moments as well, because they will be saved.

        Raises:
          ValueError: naming the first step at fault, its examples and the files that its batch is in.
        """
        for step, report in self._reports.items():
            loss, norm = float(report["loss"]), float(report["gradient_norm"])
            if is_fault(loss, norm, bool(report["skipped"])):
                self._stop(
                    step, report, f"the loss is {loss} and its gradient {norm} at step {step}"
                )
        if weights and (names := _spoiled(self._state)):
            self._stop(step, report, f"step {step} left values not finite in {_some(names, 2)}")
        self._reports.clear()

    def _stop(self, step: int, report: dict, fault: str):
        seen = {name: report["outputs"][name] for name in _OUTPUTS}
        seen["example_loss"] = report["example_loss"]
        seen = {name: self._strategy.gather(value, axis=0) for name, value in seen.items()}
        batches = dataset.training_batches(self._split, self._config, start_step=step - 1)
        values = {**next(iter(batches)), **seen}
        values = {name: value.numpy() for name, value in values.items()}
        values["id"] = np.array([name.decode(errors="replace") for name in values["id"]])
        values |= {name: report[name].numpy() for name in ("loss", "gradient_norm")}
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
        """Writes the files, in the chief; what there is to say of them."""
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
        """The images of a batch with their labels, those at fault first."""
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
        image = np.nan_to_num(values["image"][i]).clip(0, 255).astype(np.uint8)
        labels = np.where(values["weights"][i][:, None] > 0, values["landmarks"][i], np.nan)
        return overlay.draw_overlay(
            Image.fromarray(image),
            labels,
            np.full((len(labels), 2, 2), np.nan),
            edges=self._split.landmark_set.edges,
            min_side=_TILE,
            max_side=_TILE,
            legend=False,
        )


def _spoiled(state: State) -> list[str]:
    """The variables, of those that checkpoints hold, with a number that is not finite."""
    models = [state.model] if state.average is None else [state.model, state.average]
    variables = [*state.optimizer.variables, *(v for model in models for v in model.weights)]
    return [v.path for v in variables if not np.isfinite(v.numpy()).all()]


def _some(names: list[str], most: int = 5) -> str:
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more]) or "none"


def _last_checkpoint(run: Path) -> str:
    last = tf.train.latest_checkpoint(run / "latest")
    return f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
