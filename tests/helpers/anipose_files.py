"""Anipose's calibration files, as aniposelib writes them."""

import numpy as np


def rows(array):
    return str(np.asarray(array).tolist())


def write_anipose(path, cameras):
    import cv2

    parts = []
    for i, camera in enumerate(cameras):
        vector = cv2.Rodrigues(camera.rotation)[0].ravel()
        fisheye = "fisheye = true\n" if camera.is_fisheye else ""
        parts.append(
            f'[cam_{i}]\nname = "{camera.name}"\nsize = [640, 480]\nmatrix = {rows(camera.matrix)}\n'
            f"distortions = {rows(camera.distortion)}\nrotation = {rows(vector)}\n"
            f"translation = {rows(camera.translation)}\n{fisheye}"
        )
    path.write_text("\n".join(parts) + "\n[metadata]\nadjusted = false\nerror = 0.4\n")
    return path
