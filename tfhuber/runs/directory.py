"""The directory of a run before its first step: whose it is, and what must be there to begin."""

import logging
from pathlib import Path

from tfhuber.config import schema
from tfhuber.config.schema import Config
from tfhuber.console.files import read_json, write_json
from tfhuber.landmarks.known_sets import LandmarkSet, describe
from tfhuber.runs import provenance

__all__ = ["claim", "fit_whitening"]

_LOGGER = logging.getLogger(__name__)


def claim(run: Path, config: Config, landmark_set: LandmarkSet) -> None:
    """Writes `run.json`, or checks that the run that is there has this configuration.

    That the data set has been converted again since is only warned of.

    Raises:
      ValueError: if the directory holds something else; the message says what to do.
      OSError: if it cannot be written.
    """
    path = run / "run.json"
    come_from = provenance.describe(config.data.directory)
    if path.is_file():
        try:
            values = read_json(path)
            there = schema.parse(values["config"], str(path))
            data = values.get("provenance", {}).get("data", come_from["data"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged ({error}); put a copy of it back or choose another --run"
            ) from error
        changed = schema.differences(there, config)
        if changed:
            raise ValueError(
                f"{run} holds a run of another configuration (there, here): {'; '.join(changed)}; "
                "choose another --run or delete it"
            )
        if data != come_from["data"]:
            _LOGGER.warning(
                "%s has changed since %s began: it goes on, but not as it would have ended",
                config.data.directory,
                run,
            )
        return
    # The start may have been cut off while the first file was written.
    others = [p for p in run.iterdir() if p.name != "run.json.tmp"] if run.is_dir() else []
    if others or (run.exists() and not run.is_dir()):
        raise ValueError(f"{run} exists and is no training run; choose another --run")
    run.mkdir(parents=True, exist_ok=True)
    values = {
        "config": config.model_dump(mode="json"),
        "landmark_set": describe(landmark_set),
        "provenance": come_from,
    }
    write_json(path, values)


def fit_whitening(run: Path, config: Config, split) -> None:
    """Computes `whitening.json` from the training split's labels, unless it is there and can be read.

    Raises:
      ValueError: if the labels cannot be read.
      OSError: if the file cannot be written.
    """
    from tfhuber.data import dataset
    from tfhuber.model import whitening

    path, count = run / "whitening.json", split.landmark_set.count
    try:
        whitening.Whitening.load(path, count)
    except FileNotFoundError:
        pass
    except ValueError:
        _LOGGER.warning("%s cannot be read; computing it again", path)
    else:
        return
    labels = dataset.augmented_labels(split, config)
    whitening.fit(dataset.readable(labels, split), count, config.model.image_size).save(path)
