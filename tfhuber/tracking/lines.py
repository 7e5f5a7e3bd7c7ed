"""The lines of JSON that the client and the prediction job write, read with what can be wrong with them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from tfhuber.tracking.filtering import usable

__all__ = ["Frame", "LineReader", "Sighting"]

_MOST_LANDMARKS = 100_000
_MOST_BYTES = 256 * 2**20  # of a line


@dataclass
class Sighting:
    """One object in a frame, in the picture's pixels.

    Attributes:
      landmarks: [K, 2]; NaN where the model abstains.
      covariance: [K, 2, 2].
      box: [4] that was looked at, or None.
    """

    landmarks: np.ndarray
    covariance: np.ndarray
    box: np.ndarray | None = None


@dataclass
class Frame:
    """A picture and the objects that were found on it, none if there was no answer.

    Attributes:
      source: the file's name.
      number: the frame's, as in the lines, or counted from 0 over pictures.
      seconds: its time in a video, or None.
      is_video: whether the lines number their frames.
      sightings: in the order of the lines.
    """

    source: str
    number: int
    seconds: float | None
    is_video: bool
    sightings: list[Sighting] = field(default_factory=list)


class LineReader:
    """A reader of predictions that counts what it leaves out.

    Attributes:
      damaged: how many lines were no JSON object of a prediction.
      first_damaged: the number of the first, from 1, and what was wrong with it.
      failures: how many said that a picture has no answer.
      first_failure: what the first of these said.

    Args:
      name: what errors call the input.
    """

    def __init__(self, name: str):
        self.damaged = self.failures = 0
        self.first_damaged = self.first_failure = ""
        self._name = name
        self._count: int | None = None
        self._last: Frame | None = None

    def read(self, lines: Iterable[bytes]) -> Iterator[Frame]:
        """Yield the frame of each line with its one object, if any; lines of one frame give equal numbers.

        Raises:
          ValueError: frames go back, a line has no covariances, or the number of landmarks changes.
        """
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = self._values(line)
            except ValueError as error:
                self.damaged += 1
                self.first_damaged = self.first_damaged or f"line {number}: {error}"
                continue
            yield self._frame(values, number)

    def frames(self, lines: Iterable[bytes]) -> Iterator[Frame]:
        """Yield the frames, each with all of its objects."""
        waiting: Frame | None = None
        for frame in self.read(lines):
            if waiting is not None and frame.number == waiting.number:
                waiting.sightings += frame.sightings
                continue
            if waiting is not None:
                yield waiting
            waiting = frame
        if waiting is not None:
            yield waiting

    @staticmethod
    def _values(line: bytes) -> dict[str, Any]:
        """Return the JSON object of a line; ValueError if it is none of a prediction."""
        if len(line) > _MOST_BYTES:
            raise ValueError(f"it has {len(line):,} bytes")
        values = orjson.loads(line)
        if not isinstance(values, dict) or not {"landmarks", "error"} & values.keys():
            raise ValueError("it is no prediction: it has neither landmarks nor an error")
        if not isinstance(values.get("source", ""), str):
            raise ValueError("its source is no text")
        number, seconds = values.get("frame"), values.get("seconds")
        if number is not None and (type(number) is not int or not 0 <= number < 2**53):
            raise ValueError(f"its frame is no number from 0, but {number!r:.40}")
        if seconds is not None and not (isinstance(seconds, int | float) and np.isfinite(seconds)):
            raise ValueError(f"its seconds are no number, but {seconds!r:.40}")
        if "landmarks" in values:
            values["landmarks"] = _array(values["landmarks"], "landmarks", 2)
            if len(values["landmarks"]) > _MOST_LANDMARKS:
                raise ValueError(f"it has {len(values['landmarks']):,} landmarks")
            if values.get("covariance") is not None:
                values["covariance"] = _array(values["covariance"], "covariance", 2, 2)
                if len(values["covariance"]) != len(values["landmarks"]):
                    raise ValueError("it has not as many covariances as landmarks")
        if values.get("box") is not None:
            values["box"] = _array(values["box"], "box")
            if values["box"].shape != (4,):
                raise ValueError("its box has not four sides")
        return values

    def _frame(self, values: dict[str, Any], line: int) -> Frame:
        source, last = values.get("source", ""), self._last
        number, is_video = values.get("frame"), values.get("frame") is not None
        if number is None:  # pictures: another name is another frame
            number = 0 if last is None else last.number + (source != last.source)
        elif last is not None and number < last.number:
            raise ValueError(
                f"{self._name}, line {line}: frame {number} comes after frame {last.number}; sort the "
                "lines by their frames, and track each video by itself"
            )
        frame = self._last = Frame(source, number, values.get("seconds"), is_video)
        if "landmarks" not in values:
            self.failures += 1
            self.first_failure = self.first_failure or str(values["error"])
            return frame
        landmarks = values["landmarks"]
        if values.get("covariance") is None:
            raise ValueError(
                f"{self._name}, line {line}: landmarks without covariances, which tell how far to trust "
                "each; write the lines with serving.client --jsonl or tfhuber predict_all"
            )
        if self._count not in (None, len(landmarks)):
            raise ValueError(
                f"{self._name}, line {line}: {len(landmarks)} landmarks, but {self._count} before"
            )
        self._count = len(landmarks)
        if not usable(landmarks, values["covariance"]).any():
            self.failures += 1
            self.first_failure = self.first_failure or "no landmark has a place and a covariance"
            return frame
        frame.sightings.append(Sighting(landmarks, values["covariance"], values.get("box")))
        return frame


def _array(values: Any, name: str, *shape: int) -> np.ndarray:
    """Return nested lists as an array [N, *shape]; null is NaN."""
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"its {name} are no lists of numbers") from None
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        raise ValueError(
            f"its {name} must be [N, {', '.join(map(str, shape))}]".replace(", ]", "]")
        )
    return array
