"""What the tests of the demo page share: models that look at pixels, pictures, and a browser."""

import base64
import contextlib
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from fake_server import FakeModel
from PIL import Image, ImageDraw

from pipelines.sample.faces import draw_faces
from serving.errors import RequestError
from tfhuber.landmarks.known_sets import WFLW

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]

# Where the red spot is: in a picture of 320 x 240, as it is stored.
SPOT = (80.0, 60.0)
# A name that would be a picture if the page took it for HTML.
NAMES = (*WFLW.names[:-1], "<img src=x>")
LEVELS = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
RADII = tuple(float(np.sqrt(-2 * np.log1p(-level))) for level in LEVELS)  # Gauss, not Huber
FACTS = {
    "format": 1,
    "landmark_set": {"name": "toy", "names": NAMES, "edges": [[0, 1], [1, 2]]},
    "family": "gauss",
    "ellipses": {"levels": LEVELS, "radii": RADII},
}


class PageModel(FakeModel):
    """Finds the red spot of a picture as it is stored, and puts 97 landmarks on an ellipse in the box.

    With what a tfhuber export has: `tta`, `metadata` and `precision_factor`. Landmark 0 is the spot, or
    the middle of the box where there is none; `tta` is a pixel further to the right.
    """

    signatures = ("serving_default", "tta", "metadata")

    def input_types(self, signature):
        if signature not in self.signatures:
            raise RequestError(f'Serving signature name: "{signature}" not found in signature def')
        if signature == "metadata":
            return {"query": "string"}
        return super().input_types("serving_default")

    def run(self, signature, inputs, *, timeout_ms):
        if self.error:
            raise self.error
        if signature == "metadata":
            return {"json": np.array([json.dumps(FACTS).encode()] * len(inputs["query"]))}
        rows = zip(inputs["image_bytes"], inputs["box"], strict=True)
        rows = [self.look(image, box) for image, box in rows]
        outputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        outputs["landmarks"] += np.float32([signature == "tta", 0])
        return outputs

    def look(self, file: bytes, box: np.ndarray) -> dict:
        image = Image.open(io.BytesIO(file))
        pixels = np.asarray(image.convert("RGB"), np.float32)
        if not box.any():
            box = np.array([-0.5, -0.5, image.width - 0.5, image.height - 0.5])
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        angle = np.linspace(0, 2 * np.pi, WFLW.count)
        points = centre + 0.8 * half * np.stack([np.cos(angle), np.sin(angle)], -1)
        red = (pixels[..., 0] > 180) & (pixels[..., 1:].max(-1) < 90)
        points[0] = np.argwhere(red).mean(0)[::-1] if red.sum() > 50 else centre
        deviations = np.linspace(1, 9, WFLW.count)
        rotation = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
        rotation = rotation.reshape(-1, 2, 2)
        factor = rotation @ (np.diag([1, 0.5]) / deviations[:, None, None]) @ rotation.mT
        covariance = np.linalg.inv(factor @ factor)  # Gauss: kappa is 1
        outputs = {"landmarks": points, "precision_factor": factor, "covariance": covariance}
        return {k: v.astype(np.float32) for k, v in outputs.items()} | {"valid": True}

    def describe_signatures(self):
        return {name: {"method_name": "tensorflow/serving/predict"} for name in self.signatures}


class PlainModel(PageModel):
    """Somebody else's model: one signature and three outputs, and a landmark that is no number."""

    signatures = ("serving_default",)

    def look(self, file, box):
        outputs = super().look(file, box)
        del outputs["precision_factor"]
        outputs["landmarks"][97] = np.nan
        return outputs


class InvalidModel(PageModel):
    """Takes no picture for valid."""

    def look(self, file, box):
        return super().look(file, box) | {"valid": False}


def spotted() -> Image.Image:
    """A picture with a red spot, whose quarters differ."""
    image = Image.new("RGB", (320, 240), "#2a6f7f")
    draw = ImageDraw.Draw(image)
    draw.rectangle([160, 120, 320, 240], "#d8d8d0")
    draw.ellipse([SPOT[0] - 12, SPOT[1] - 12, SPOT[0] + 12, SPOT[1] + 12], "#e01010")
    return image


def encoded(image: Image.Image, kind: str = "JPEG", orientation: int | None = None) -> bytes:
    """A file of the picture as it is stored; `orientation` is only said in its EXIF data."""
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95}
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def drawn_face() -> bytes:
    """A JPEG of a face as `pipelines.sample_data` draws them."""
    image, _ = draw_faces(np.random.default_rng(5))
    return encoded(image)


@contextlib.contextmanager
def chromium():
    """A headless browser; skips where there is none, unless TFHUBER_REQUIRE_BROWSER is set."""
    try:
        from playwright.sync_api import sync_playwright

        if not CHROMIUM.exists():
            raise FileNotFoundError(f"there is no {CHROMIUM}")
    except (ImportError, FileNotFoundError) as error:
        if os.environ.get("TFHUBER_REQUIRE_BROWSER"):
            raise
        pytest.skip(f"no browser for the demo page: {error}")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)


class Visit:
    """A page that was opened, with what a person does there and sees."""

    def __init__(self, context, url):
        self.page = context.new_page()
        self.page.set_default_timeout(30_000)
        self.complaints, self.urls = [], []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.urls.append(request.url))
        self.page.goto(url)

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def choose(self, content: bytes, name="face.jpg"):
        self.page.set_input_files("#file", {"name": name, "mimeType": "", "buffer": content})
        self.settle()

    def settle(self):
        """Waits until an answer, or what is wrong, is on the page."""
        self.page.wait_for_function("() => busy.hidden && (outcome.textContent || !message.hidden)")

    def expect(self, text: str):
        """Waits until the page says that something is wrong."""
        self.page.wait_for_function(
            "text => !message.hidden && message.textContent.includes(text)", arg=text
        )

    def circles(self) -> np.ndarray:
        """Landmarks [K, 2] as they are drawn."""
        script = "all => all.map(c => [c.getAttribute('cx'), c.getAttribute('cy')])"
        return np.array(self.page.eval_on_selector_all(".landmarks circle", script), float)

    def radii(self) -> np.ndarray:
        """Semi-axes [K, 2] of the ellipses, by landmark."""
        script = (
            """all => all.map(e => ['data-landmark', 'rx', 'ry'].map(n => e.getAttribute(n)))"""
        )
        found = np.array(self.page.eval_on_selector_all(".ellipses ellipse", script), float)
        return found[np.argsort(found[:, 0]), 1:]

    def download(self) -> dict:
        with self.page.expect_download() as download:
            self.page.click("#download")
        return json.loads(Path(download.value.path()).read_text())

    def box(self) -> list[float]:
        self.settled_box()
        return self.download()["box"]

    def settled_box(self):
        """Waits until a changed box has been asked about."""
        time.sleep(0.45)  # the page's own pause
        self.settle()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the picture is in the window."""
        script = """([x, y]) => {
            const p = new DOMPoint(x, y).matrixTransform(overlay.getScreenCTM());
            return [p.x, p.y];
        }"""
        return tuple(self.page.evaluate(script, [x, y]))

    def drag(self, start, end):
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=3)
        self.page.mouse.up()


def failing(message: str, status: int) -> PageModel:
    model = PageModel()
    model.signatures = ("serving_default", "tta")
    model.error = RequestError(message, status=status)
    return model


MODELS = {
    "wflw": PageModel(),
    "plain": PlainModel(),
    "invalid": InvalidModel(),
    "refusing": failing("at most 256 images in a request", 400),
    "busy": failing("4 requests are being computed", 503),
}


def ask(
    server, content: bytes, model="wflw", signature="serving_default", box=(0, 0, 0, 0)
) -> dict:
    """What REST answers for a file, without the page."""
    b64 = base64.b64encode(content).decode()
    inputs = {"image_bytes": [{"b64": b64}], "box": [list(box)]}
    body = {"signature_name": signature, "inputs": inputs}
    return server.post(f"/v1/models/{model}:predict", json=body).json()["outputs"]
