"""Answers in the files of pose tools: DeepLabCut, SLEAP, movement and COCO's evaluation.

All of them have one number of trust for a point; `Trust` makes it of the predicted covariance, which itself
goes where a format has room for it. A picture without an answer has no numbers: empty cells, or NaN.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from serving.client.batches import Answer
from tfhuber.console.files import Aside, blamed
from tfhuber.console.lazy import lazy_module
from tfhuber.drawing.ellipses import probability_within, standard_deviation
from tfhuber.saved_model.metadata import ModelMetadata

if TYPE_CHECKING:
    import pandas
    import sleap_io
    from scipy.io import netcdf_file as netcdf
else:
    pandas = lazy_module("pandas")  # with `tables`, for DeepLabCut's H5
    sleap_io = lazy_module("sleap_io")  # from the extra `formats`
    netcdf = lazy_module("scipy.io")

__all__ = ["CocoResults", "DlcCsv", "DlcH5", "Movement", "SleapFile", "Trust"]

# The one animal of a picture, as movement calls it.
_INDIVIDUAL = "id_0"


@dataclass(frozen=True)
class Trust:
    """How a covariance becomes the one number that pose tools have for a point.

    Attributes:
      metadata: the model's.
      kind: "distance" for the probability that the error is under `distance`; "inverse-variance" for
        1 / variance, with the variance that of a coordinate, the mean of x's and y's, in square pixels.
      distance: in the picture's pixels.
    """

    metadata: ModelMetadata
    kind: Literal["distance", "inverse-variance"] = "distance"
    distance: float = 5.0

    def of(self, covariance: np.ndarray) -> np.ndarray:
        """Return the numbers [K] of covariances [K, 2, 2]."""
        if self.kind == "inverse-variance":
            variance = standard_deviation(covariance) ** 2
            return 1 / np.maximum(variance, np.finfo(np.float32).tiny)
        model = self.metadata
        return probability_within(self.distance, covariance, model.family, model.delta, model.kappa)


@dataclass
class _Found:
    """What is kept of an answer, in the picture's pixels.

    Attributes:
      source, number, seconds, size: the picture's.
      points: [K, 3] x, y and trust; NaN without an answer.
      covariance: [K, 3] variances of x and y, and their covariance; NaN without an answer.
    """

    source: str
    number: int | None
    seconds: float | None
    size: tuple[int, int]
    points: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, answer: Answer, trust: Trust) -> Self:
        count, picture = len(trust.metadata.names), answer.picture
        points = covariance = np.full((count, 3), np.nan)
        if answer.error is None:
            if len(answer.landmarks) != count:
                raise ValueError(
                    f"the model answers with {len(answer.landmarks)} landmarks and names {count}"
                )
            points = np.column_stack([answer.landmarks, trust.of(answer.covariance)])
            covariance = answer.covariance.reshape(-1, 4)[:, [0, 3, 1]].astype(np.float64)
        name = picture.source.encode(errors="backslashreplace").decode()
        return cls(name, picture.number, picture.seconds, picture.size, points, covariance)


class _Collected:
    """A file that is written when all answers are there, since its format begins with their number.

    Args:
      path: the file.
      trust: makes the number of trust.
      scorer: what the file calls the model.
    """

    def __init__(self, path: Path, trust: Trust, scorer: str):
        self.path = path
        self._trust, self._scorer = trust, scorer
        self._names = trust.metadata.names
        self._found: list[_Found] = []

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._aside = Aside(self.path)
        return self

    def write(self, answer: Answer) -> None:
        self._found.append(_Found.of(answer, self._trust))

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None or not self._found:
            self._aside.discard()
            return
        with self._aside, blamed(self.path):
            self._save(self._aside.path)

    def _save(self, path: Path) -> None:
        raise NotImplementedError


class DlcCsv:
    """DeepLabCut's CSV of a video, with rows of frames, or of pictures by their names.

    Its columns are scorer, bodyparts, and x, y, likelihood. Beside `NAME.csv` is `NAME_cov.csv` with x_var,
    y_var and xy_cov in square pixels, since other columns would be taken for coordinates.
    """

    def __init__(self, path: Path, trust: Trust, scorer: str):
        self.path, self._beside = path, self.beside_of(path)
        self._trust, self._scorer = trust, scorer

    @staticmethod
    def beside_of(path: Path) -> Path:
        """Return the name of the file with the covariances."""
        return path.with_name(f"{path.stem}_cov.csv")

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._asides = [Aside(self.path), Aside(self._beside)]
        self._rows = [
            csv.writer(aside.open(newline=""), lineterminator="\n") for aside in self._asides
        ]
        names = self._trust.metadata.names
        for rows, axes in zip(self._rows, (_AXES, _COVARIANCES), strict=True):
            for cells in _header(self._scorer, names, axes):
                rows.writerow(cells)
        return self

    def write(self, answer: Answer) -> None:
        found = _Found.of(answer, self._trust)
        index = found.source if found.number is None else found.number
        for rows, path, values in zip(
            self._rows, (self.path, self._beside), (found.points, found.covariance), strict=True
        ):
            with blamed(path):
                rows.writerow([index, *map(_cell, values.ravel().tolist())])

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        for aside in self._asides:
            aside.__exit__(kind, error, traceback)


class DlcH5(_Collected):
    """DeepLabCut's H5 of a video: the same table in pandas' format, under the key `df_with_missing`."""

    def __init__(self, path: Path, trust: Trust, scorer: str):
        super().__init__(path, trust, scorer)
        try:
            import tables  # noqa: F401, PLC0415 (an optional package, of which pandas says less)
        except ImportError:
            raise ValueError(
                "DeepLabCut's H5 needs PyTables: pip install pandas tables; its CSV needs nothing"
            ) from None

    def _save(self, path: Path) -> None:
        columns = pandas.MultiIndex.from_product(
            [[self._scorer], self._names, _AXES], names=["scorer", "bodyparts", "coords"]
        )
        index = [each.source if each.number is None else each.number for each in self._found]
        values = np.stack([each.points.ravel() for each in self._found])
        frame = pandas.DataFrame(values, columns=columns, index=index)
        frame.to_hdf(path, key="df_with_missing", format="table", mode="w")


class SleapFile(_Collected):
    """SLEAP's `.slp` with a predicted instance for each picture that has an answer."""

    def __init__(self, path: Path, trust: Trust, scorer: str):
        super().__init__(path, trust, scorer)
        try:
            sleap_io.save_slp  # noqa: B018
        except ImportError:
            raise ValueError(
                "SLEAP's files need sleap-io: pip install -e '.[formats]' -c constraints.txt"
            ) from None

    def _save(self, path: Path) -> None:
        edges = [(self._names[a], self._names[b]) for a, b in self._trust.metadata.edges]
        skeleton = sleap_io.Skeleton(nodes=list(self._names), edges=edges, name=self._scorer)
        video = self._video()
        frames = []
        for index, each in enumerate(self._found):
            if np.isnan(each.points).all():
                continue
            instance = sleap_io.PredictedInstance.from_numpy(
                each.points[:, :2],
                skeleton,
                point_scores=each.points[:, 2],
                score=float(each.points[:, 2].mean()),
            )
            number = index if each.number is None else each.number
            frames.append(
                sleap_io.LabeledFrame(video=video, frame_idx=number, instances=[instance])
            )
        labels = sleap_io.Labels(frames, videos=[video], skeletons=[skeleton])
        sleap_io.save_slp(labels, str(path), verbose=False)

    def _video(self) -> Any:
        """Return the video, or the pictures as one, without opening anything."""
        first = self._found[0]
        width, height = first.size
        about = {"shape": [len(self._found), height, width, 3], "grayscale": False}
        if first.number is not None:
            about |= {"type": "MediaVideo", "filename": first.source}
            return sleap_io.Video(first.source, backend_metadata=about, open_backend=False)
        files = [each.source for each in self._found]
        about |= {"type": "ImageVideo", "filename": files[0], "filenames": files}
        return sleap_io.Video(files, backend_metadata=about, open_backend=False)


class Movement(_Collected):
    """A netCDF file as `movement` loads it: position, confidence, and the covariance as one more variable.

    `position` is (time, space, keypoints, individuals) in pixels, `confidence` (time, keypoints,
    individuals), `covariance` (time, space, other_space, keypoints, individuals) in square pixels. Times
    are seconds of a video, or numbers of pictures.
    """

    def _save(self, path: Path) -> None:
        times = [each.seconds for each in self._found]
        in_seconds = all(time is not None for time in times)
        points = np.stack([each.points for each in self._found])
        variance = np.stack([each.covariance for each in self._found])
        covariance = variance[..., [[0, 2], [2, 1]]]  # [T, K, 2, 2]
        with netcdf.netcdf_file(str(path), "w", version=2) as file:
            _coordinates(file, {"space": ["x", "y"], "other_space": ["x", "y"]})
            _coordinates(file, {"keypoints": self._names, "individuals": [_INDIVIDUAL]})
            file.createDimension("time", len(times))
            moments = times if in_seconds else list(range(len(times)))
            file.createVariable("time", "d", ("time",))[:] = np.array(moments, np.float64)
            for name, values, axes in (
                ("position", points[:, :, :2].swapaxes(1, 2), ("space", "keypoints")),
                ("confidence", points[:, :, 2], ("keypoints",)),
                (
                    "covariance",
                    np.moveaxis(covariance, 1, 3),
                    ("space", "other_space", "keypoints"),
                ),
            ):
                variable = file.createVariable(name, "d", ("time", *axes, "individuals"))
                variable[:] = values[..., np.newaxis]
                variable._FillValue = np.float64(np.nan)
            file.ds_type, file.source_software = "poses", "tfhuber"
            file.source_file = self._found[0].source
            file.time_unit = "seconds" if in_seconds else "frames"
            if in_seconds and len(times) > 1 and (rate := _rate(moments)):
                file.fps = np.float64(rate)


class CocoResults(_Collected):
    """COCO's results for keypoints: a JSON list with an object for each picture that has an answer.

    `keypoints` has x, y and the trust of each, `score` their mean, `covariance` [K, 3] x_var, y_var and
    xy_cov in square pixels, which other programs leave alone.

    Args:
      path, trust, scorer: as for the other files.
      images: ids by file name, of the annotations that the results are compared with; None for the
        frames' numbers, or those of the pictures from 1.
    """

    def __init__(
        self, path: Path, trust: Trust, scorer: str, images: Mapping[str, Any] | None = None
    ):
        super().__init__(path, trust, scorer)
        self._images = images
        self._ids: list[Any] = []

    def write(self, answer: Answer) -> None:
        super().write(answer)
        self._ids.append(self._id(self._found[-1], len(self._found)))

    def _save(self, path: Path) -> None:
        rows = [
            {
                "image_id": id,
                "category_id": 1,
                "keypoints": each.points.ravel().tolist(),
                "score": float(each.points[:, 2].mean()),
                "file_name": each.source,
                "covariance": each.covariance.tolist(),
            }
            for id, each in zip(self._ids, self._found, strict=True)
            if not np.isnan(each.points).all()
        ]
        mode = "a" if self._aside.is_stream else "w"
        with path.open(mode, encoding="utf-8") as file:
            json.dump(rows, file)

    def _id(self, found: _Found, index: int) -> Any:
        if self._images is None:
            return index if found.number is None else found.number
        known = [self._images[name] for name in _names(found.source) if name in self._images]
        if not known:
            raise ValueError(
                f"{found.source} is no image of the COCO file, whose ids are asked for"
            )
        return known[0]


_AXES = ("x", "y", "likelihood")
_COVARIANCES = ("x_var", "y_var", "xy_cov")


def _header(scorer: str, names: Sequence[str], axes: Sequence[str]) -> Iterator[list[str]]:
    yield ["scorer", *[scorer] * len(names) * len(axes)]
    yield ["bodyparts", *(name for name in names for _ in axes)]
    yield ["coords", *(axis for _ in names for axis in axes)]


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.9g}"


def _coordinates(file: Any, axes: Mapping[str, Sequence[str]]) -> None:
    """Add axes whose places have names, which are UTF-8 of one width."""
    for axis, names in axes.items():
        texts = [name.encode() for name in names]
        width = max(map(len, texts))
        file.createDimension(axis, len(texts))
        file.createDimension(f"{axis}_text", width)
        variable = file.createVariable(axis, "c", (axis, f"{axis}_text"))
        variable._Encoding = "utf-8"
        for index, text in enumerate(texts):
            variable[index] = np.frombuffer(text.ljust(width, b"\0"), "S1")


def _rate(times: Sequence[Any]) -> float | None:
    """Return frames in a second, if they are equally far apart to a tenth of that."""
    steps = np.diff(np.array(times, np.float64))
    usual = float(np.median(steps))
    return 1 / usual if usual > 0 and np.all(np.abs(steps - usual) < 0.1 * usual) else None


def _names(source: str) -> Iterator[str]:
    """Yield the ends of a path, from all of it to the file's name."""
    parts = Path(source).parts
    yield source
    for index in range(len(parts)):
        yield "/".join(parts[index:])
