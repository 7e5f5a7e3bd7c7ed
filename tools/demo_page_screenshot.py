"""The picture of the demo page in the README: `python -m tools.demo_page_screenshot`.

Serves the model that `make demo` left in `demo/`, opens its page in a headless Chromium, gives it a
drawn face and its box, and writes `docs/demo_page.png`. CHROMIUM names the browser where it is not
/usr/bin/chromium.
"""

import argparse
import io
import os
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tfhuber.console.cli import run_main
from tools import demo

__all__ = ["main"]

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
WIDTH, HEIGHT = 1280, 800


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo_page_screenshot")
    parser.add_argument("--output", type=Path, default=Path("docs/demo_page.png"))
    arguments = parser.parse_args()
    if not demo.MODEL.is_dir():
        raise ValueError(f"there is no {demo.MODEL}: `make demo` makes it")
    face, box = demo.test_face()
    with demo.server() as url:
        picture = screenshot(url, face, box.split(","))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    picture.save(arguments.output, optimize=True)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1000:.0f} kB")


def screenshot(url: str, face: Path, box: list[str]) -> Image.Image:
    """Return the page after it was given a picture and the box of the face in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(f"{url}/?model={demo.MODEL.name}")
        page.set_input_files("#file", face)
        for name, value in zip(("x0", "y0", "x1", "y1"), box, strict=True):
            page.fill(f"#{name}", value)
        numbers = ", ".join(str(round(float(value))) for value in box)
        page.wait_for_function("text => outcome.textContent.includes(text)", arg=numbers)
        page.click("#find")  # again: the first request of all takes longer
        page.wait_for_function("() => busy.hidden")
        page.evaluate("() => document.activeElement.blur()")
        picture = page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(picture)).convert("RGB")


if __name__ == "__main__":
    run_main(main)
