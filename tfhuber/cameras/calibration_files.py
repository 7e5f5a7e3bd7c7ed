"""Files of calibrated cameras: Anipose's and aniposelib's TOML, OpenCV's YAML, and COLMAP's text."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tfhuber.cameras.camera import Camera, rotation_of

__all__ = ["read_cameras"]

_MOST_BYTES = 256 * 2**20

# What others call the entries of OpenCV's files.
_MATRIX = ("camera_matrix", "cameraMatrix", "K", "matrix", "intrinsics")
_DISTORTION = ("distortion_coefficients", "dist_coeffs", "distCoeffs", "D", "distortions")
_ROTATION = ("rvec", "R", "rotation", "rotation_vector", "rotation_matrix")
_TRANSLATION = ("tvec", "T", "t", "translation", "translation_vector")

# Of COLMAP's models: how many focal lengths, where the rest goes in `Camera.distortion`, and if a fish-eye.
_MODELS: dict[str, tuple[int, Sequence[int], bool]] = {
    "SIMPLE_PINHOLE": (1, (), False),
    "PINHOLE": (2, (), False),
    "SIMPLE_RADIAL": (1, (0,), False),
    "RADIAL": (1, (0, 1), False),
    "OPENCV": (2, (0, 1, 2, 3), False),
    "FULL_OPENCV": (2, (0, 1, 2, 3, 4, 5, 6, 7), False),
    "SIMPLE_RADIAL_FISHEYE": (1, (0,), True),
    "RADIAL_FISHEYE": (1, (0, 1), True),
    "OPENCV_FISHEYE": (2, (0, 1, 2, 3), True),
}


def read_cameras(paths: Sequence[Path]) -> list[Camera]:
    """Return the cameras of calibration files, at least two.

    Args:
      paths: a `.toml`; `.yaml` or `.yml` files of OpenCV, one for each camera, named as it is, or one with
        an entry for each; or a folder with COLMAP's `cameras.txt` and `images.txt`.

    Raises:
      ValueError: a file is none of these, or two cameras have one name; the message names the file.
      OSError: one cannot be read.
    """
    cameras: list[Camera] = []
    for path in paths:
        if path.is_dir():
            cameras += _colmap(path)
        elif path.suffix.lower() == ".toml":
            cameras += _anipose(path)
        elif path.suffix.lower() in (".yaml", ".yml"):
            cameras += _opencv(path)
        else:
            raise ValueError(
                f"{path}: a calibration is Anipose's .toml, OpenCV's .yaml, or a folder of COLMAP's text"
            )
    names = [camera.name for camera in cameras]
    if len(names) != len(set(names)):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{', '.join(map(str, paths))}: two cameras are called {twice!r}")
    if len(cameras) < 2:
        raise ValueError(
            f"{', '.join(map(str, paths))}: {len(cameras)} cameras; two at least are needed"
        )
    return cameras


def _text(path: Path) -> str:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path} is no calibration: it has {path.stat().st_size:,} bytes")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no calibration: it is not text") from None


def _anipose(path: Path) -> list[Camera]:
    try:
        entries = tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    found = []
    for key, entry in entries.items():
        if key != "metadata" and isinstance(entry, dict):
            found.append(_camera(str(entry.get("name", key)), entry, f"{path}, [{key}]"))
    return found


class _OpenCVLoader(yaml.SafeLoader):
    """YAML with OpenCV's matrices."""


def _matrix_node(loader: yaml.SafeLoader, node: yaml.MappingNode) -> np.ndarray:
    values = loader.construct_mapping(node, deep=True)
    return np.array(values["data"], float).reshape(int(values["rows"]), int(values["cols"]))


_OpenCVLoader.add_constructor("tag:yaml.org,2002:opencv-matrix", _matrix_node)


def _opencv(path: Path) -> list[Camera]:
    text = _text(path)
    if text.startswith("%YAML:"):  # OpenCV's, which YAML's own parsers refuse
        text = text.partition("\n")[2]
    try:
        values = yaml.load(text, _OpenCVLoader)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not OpenCV's YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is no calibration: it holds no names")
    if any(name in values for name in _MATRIX):
        return [_camera(str(values.get("camera_name", path.stem)), values, str(path))]
    entries = {str(key): entry for key, entry in values.items() if isinstance(entry, dict)}
    found = {key: entry for key, entry in entries.items() if any(name in entry for name in _MATRIX)}
    if not found:
        raise ValueError(f"{path} has no camera: none of {', '.join(_MATRIX)} is there")
    return [_camera(key, entry, f"{path}, {key}") for key, entry in found.items()]


def _camera(name: str, entry: Mapping[str, Any], where: str) -> Camera:
    """Return the camera of an entry of TOML or YAML."""
    matrix = _numbers(entry, _MATRIX, where).reshape(-1)
    if matrix.size != 9:
        raise ValueError(f"{where}: the camera matrix must be 3 x 3, it has {matrix.size} numbers")
    rotation = _numbers(entry, _ROTATION, where).reshape(-1)
    if rotation.size not in (3, 9):
        raise ValueError(
            f"{where}: a rotation is a vector of 3 or a matrix of 9, got {rotation.size} numbers"
        )
    turned = rotation_of(rotation) if rotation.size == 3 else rotation.reshape(3, 3)
    translation = _numbers(entry, _TRANSLATION, where).reshape(-1)
    if translation.size != 3:
        raise ValueError(f"{where}: a translation has 3 numbers, got {translation.size}")
    if np.abs(turned @ turned.T - np.eye(3)).max() > 1e-4 or np.linalg.det(turned) < 0:
        raise ValueError(f"{where}: the rotation is none: its rows are not at right angles")
    is_fisheye = bool(entry.get("fisheye", False))
    given = np.zeros(0)
    if any(key in entry for key in _DISTORTION):
        given = _numbers(entry, _DISTORTION, where).reshape(-1)
    return Camera(
        name,
        matrix.reshape(3, 3),
        _distortion(given, is_fisheye, where),
        turned,
        translation,
        is_fisheye,
    )


def _distortion(given: np.ndarray, is_fisheye: bool, where: str) -> np.ndarray:
    most = 4 if is_fisheye else 8
    if given[most:].any():
        raise ValueError(
            f"{where}: {given.size} distortion coefficients, of which {most} are known"
        )
    out = np.zeros(most)
    out[: min(most, given.size)] = given[:most]
    return out


def _numbers(entry: Mapping[str, Any], names: Sequence[str], where: str) -> np.ndarray:
    """Return the first of these entries that is there, as finite numbers."""
    key = next((name for name in names if name in entry), None)
    if key is None:
        raise ValueError(f"{where} has no {names[0]}; is it calibrated with its pose?")
    try:
        values = np.array(entry[key], float)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {key} must be numbers") from None
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: {key} must be finite")
    return values


def _colmap(folder: Path) -> list[Camera]:
    lenses = {}
    for number, line in _rows(folder / "cameras.txt"):
        words, where = line.split(), f"{folder / 'cameras.txt'}, line {number}"
        if len(words) < 5 or words[1] not in _MODELS:
            known = ", ".join(_MODELS)
            raise ValueError(f"{where}: no camera of a model that is known ({known})")
        lenses[words[0]] = _lens(words[1], _floats(words[4:], where), where)
    found = []
    # Every other line lists an image's points, and is empty where there are none.
    for number, line in list(_rows(folder / "images.txt", keep_empty=True))[::2]:
        words, where = line.split(maxsplit=9), f"{folder / 'images.txt'}, line {number}"
        if not words:
            continue
        if len(words) < 10 or words[8] not in lenses:
            raise ValueError(f"{where}: no image with a pose and a camera of cameras.txt")
        pose = _floats(words[1:8], where)
        matrix, distortion, is_fisheye = lenses[words[8]]
        name = Path(words[9].strip()).with_suffix("").as_posix()
        found.append(
            Camera(name, matrix, distortion, _of_quaternion(pose[:4], where), pose[4:], is_fisheye)
        )
    return found


def _rows(path: Path, keep_empty: bool = False) -> list[tuple[int, str]]:
    lines = enumerate(_text(path).splitlines(), start=1)
    rows = [(number, line) for number, line in lines if not line.startswith("#")]
    return rows if keep_empty else [(number, line) for number, line in rows if line.strip()]


def _floats(words: Sequence[str], where: str) -> np.ndarray:
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        raise ValueError(f"{where}: not all are numbers") from None
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: not all numbers are finite")
    return values


def _lens(model: str, values: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray, bool]:
    focal, places, is_fisheye = _MODELS[model]
    if len(values) != focal + 2 + len(places):
        raise ValueError(
            f"{where}: {model} has {focal + 2 + len(places)} parameters, got {len(values)}"
        )
    # COLMAP counts pixels from their corner, so that the centre of the first is at a half.
    centre = values[focal : focal + 2] - 0.5
    matrix = np.array([[values[0], 0, centre[0]], [0, values[focal - 1], centre[1]], [0, 0, 1]])
    distortion = np.zeros(4 if is_fisheye else 8)
    distortion[list(places)] = values[focal + 2 :]
    return matrix, distortion, is_fisheye


def _of_quaternion(q: np.ndarray, where: str) -> np.ndarray:
    norm = np.linalg.norm(q)
    if not norm > 0:
        raise ValueError(f"{where}: the rotation is 0")
    w, x, y, z = q / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
