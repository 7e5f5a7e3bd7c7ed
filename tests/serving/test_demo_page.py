"""The demo page in a browser: what it sends, draws and says, with mouse, finger, keys and camera."""

import base64
import io
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from demo_browser import (
    MODELS,
    NAMES,
    SPOT,
    Visit,
    ask,
    chromium,
    drawn_face,
    encoded,
    spotted,
)
from fake_server import FakeVersions, local_server, running
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from tfhuber.drawing import ellipses, overlay
from tfhuber.landmarks import known_sets

DEMO = Path(__file__).resolve().parents[2] / "serving" / "demo"


def application(**options):
    """A server of several models with labels, as TensorFlow Serving is one."""
    server = local_server(FakeVersions(), **options)
    find = server.service.find
    server.service.find = lambda name, *which: (3, MODELS[name]) if name in MODELS else find(name)
    return server


@pytest.fixture(scope="module")
def server():
    with running(application()) as client:
        yield client


@pytest.fixture(scope="module")
def elsewhere():
    """The page on another origin than the model's."""
    with running(Starlette(routes=[Mount("/", StaticFiles(directory=DEMO, html=True))])) as client:
        yield str(client.base_url)


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser, server):
    """Opens the page; afterwards, nothing went to other origins and the console is clean."""
    visits = []

    def open_page(query="", url=None, complains=False, **options):
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}} | options)
        visits.append(
            (context, visit := Visit(context, f"{url or server.base_url}/{query}"), complains)
        )
        visit.page.wait_for_function(
            "() => document.getElementById('model-state').textContent !== '…'"
        )
        return visit

    yield open_page
    origin = str(server.base_url)
    for context, visit, complains in visits:
        complaints, urls = visit.complaints, visit.urls
        context.close()
        if not complains:
            assert complaints == []
            assert [url for url in urls if not url.startswith((origin, f"blob:{origin}"))] == []


# --- what is sent and drawn


def test_landmarks_are_what_rest_answers_for_the_file(visit, server):
    face = drawn_face()
    visit = visit()
    visit.choose(face)
    expected = ask(server, face)
    np.testing.assert_array_equal(visit.circles(), expected["landmarks"][0])
    found = visit.download()
    assert found["outputs"] == expected
    assert found["names"] == list(NAMES) and found["picture"]["reencoded"] is False
    assert 0 < found["milliseconds"]["request"] <= found["milliseconds"]["total"]
    assert re.search(
        r"98 landmarks .* Request \d+ ms, in all \d+ ms", visit.page.inner_text("#outcome")
    )
    assert visit.page.locator(".edges line").count() == 2
    rows = visit.page.locator("#rows tr").all_inner_texts()
    assert len(rows) == 98 and rows[97].split("\t")[1] == NAMES[97]  # text, not HTML
    x, y = expected["landmarks"][0][5]
    (xx, _), (_, yy) = expected["covariance"][0][5]
    cells = [float(cell) for cell in rows[5].split("\t")[2:6]]
    np.testing.assert_allclose(cells, [x, y, xx**0.5, yy**0.5], atol=0.051)


def test_a_dropped_picture(visit):
    visit = visit()
    script = """b64 => {
        const bytes = Uint8Array.from(atob(b64), c => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "dropped.jpg"));
        const drop = {dataTransfer: data, bubbles: true, cancelable: true};
        stage.dispatchEvent(new DragEvent("dragover", drop));
        stage.dispatchEvent(new DragEvent("drop", drop));
    }"""
    visit.page.evaluate(script, base64.b64encode(encoded(spotted())).decode())
    visit.settle()
    assert visit.download()["picture"]["name"] == "dropped.jpg"
    assert not visit.page.locator(".dropping").count()


@pytest.mark.parametrize(
    ("kind", "orientation", "reencoded", "spot"),
    [
        ("JPEG", None, False, SPOT),
        ("JPEG", 1, False, SPOT),
        ("PNG", None, False, SPOT),
        ("WEBP", None, True, SPOT),
        ("JPEG", 3, True, (319 - SPOT[0], 239 - SPOT[1])),
        ("JPEG", 6, True, (239 - SPOT[1], SPOT[0])),
    ],
)
def test_positions_are_those_of_the_picture_on_the_page(visit, kind, orientation, reencoded, spot):
    visit = visit()
    visit.choose(encoded(spotted(), kind, orientation))
    found = visit.download()
    size = (240, 320) if orientation == 6 else (320, 240)
    assert (found["picture"]["width"], found["picture"]["height"]) == size
    assert found["picture"]["reencoded"] is reencoded
    np.testing.assert_allclose(visit.circles()[0], spot, atol=0.5)
    # The spot is where the circle is on the screen, and not where its mirror image would be.
    visit.page.evaluate("() => { overlay.style.visibility = 'hidden'; }")
    shot = Image.open(io.BytesIO(visit.page.screenshot())).convert("RGB")
    red, green, blue = shot.getpixel(tuple(map(round, visit.at(*visit.circles()[0]))))
    assert red > 180 and max(green, blue) < 90


def test_the_other_signature(visit, server):
    visit = visit()
    visit.choose(content := encoded(spotted()))
    before = visit.circles()
    visit.page.select_option("#signature", "tta")
    visit.page.wait_for_function(
        f"() => {before[0, 0]} !== +document.querySelector('.landmarks circle').getAttribute('cx')"
    )
    np.testing.assert_allclose(visit.circles() - before, np.tile([1, 0], (98, 1)), atol=1e-4)
    assert "signature=tta" in visit.page.url
    assert visit.download()["outputs"] == ask(server, content, signature="tta")


def test_ellipses_hold_the_chosen_probability(visit, server):
    visit = visit()
    visit.choose(content := encoded(spotted()))
    values = np.linalg.eigvalsh(ask(server, content)["precision_factor"][0])[:, ::-1]

    def check(level):
        gauss = np.sqrt(-2 * np.log1p(-level))  # the model's own table, not Huber's
        np.testing.assert_allclose(visit.radii(), gauss / values, rtol=1e-5)

    check(0.9)
    for percent in (10, 50, 99, 99.9):
        visit.page.locator("#level").fill(str(percent))
        check(percent / 100)
        assert visit.page.inner_text("#level-text") == f"{percent:g} %"


def test_a_model_that_says_nothing_of_itself(visit, server):
    visit = visit("?model=plain")
    assert visit.page.locator("#signature option[value=tta]").is_disabled()
    visit.choose(content := encoded(spotted()))
    outputs = ask(server, content, "plain")  # Python's JSON knows NaN
    np.testing.assert_array_equal(visit.circles(), outputs["landmarks"][0][:97])
    edges = [edge for edge in known_sets.by_count(98).edges if 97 not in edge]
    assert visit.page.locator(".edges line").count() == len(edges)
    assert visit.page.locator("#rows th").all_inner_texts()[3] == "landmark 3"
    deviations = np.sqrt(np.linalg.eigvalsh(outputs["covariance"][0]))[:97, ::-1]
    np.testing.assert_allclose(visit.radii(), ellipses.radius_for(0.9) * deviations, rtol=1e-5)


def test_mathematics_is_that_of_the_package(visit):
    page = visit().page
    sets = known_sets.LANDMARK_SETS.values()
    script = "async n => (await import('/landmark_sets.js')).edgesByCount(n)"
    for known in sets:
        assert page.evaluate(script, known.count) == [list(edge) for edge in known.edges]
    assert page.evaluate(script, 5) == []
    script = """async levels => {
        const { quantile, HUBER_KAPPA } = await import('/uncertainty.js');
        return levels.map(level => quantile(level) / Math.sqrt(HUBER_KAPPA));
    }"""
    levels = [0.05, 0.2, 0.5, 0.9, 0.999]
    expected = [ellipses.radius_for(level) for level in levels]
    np.testing.assert_allclose(page.evaluate(script, levels), expected, rtol=1e-9)
    script = """async ([points, deviations]) =>
        (await import('/uncertainty.js')).colours(points, deviations)"""
    deviations = [0.001, 0.3, 1, 2.5, 40]
    found = page.evaluate(script, [[[0, 0], [60, 80]], deviations])
    found = [[int(part) for part in re.findall(r"\d+", colour)] for colour in found]
    expected = 255 * overlay._colours(np.array(deviations) / 100)[:, :3]
    np.testing.assert_allclose(found, expected, atol=3)


# --- the box


def test_the_box_with_the_mouse(visit, server):
    visit = visit()
    visit.choose(content := encoded(spotted()))
    assert visit.download()["box"] == [0, 0, 0, 0]
    visit.drag((40, 30), (140, 130))
    np.testing.assert_allclose(drawn := visit.box(), [40, 30, 140, 130], atol=1)
    assert visit.download()["outputs"] == ask(server, content, box=drawn)
    visit.drag((90, 80), (110, 70))
    np.testing.assert_allclose(visit.box(), [60, 20, 160, 120], atol=1.5)
    visit.drag((160, 120), (200, 180))  # a corner
    np.testing.assert_allclose(visit.box(), [60, 20, 200, 180], atol=2)
    visit.drag((130, 100), (900, 100))  # no further than the edge
    np.testing.assert_allclose(visit.box(), [179.5, 20, 319.5, 180], atol=2)
    visit.page.click("#whole")
    assert visit.box() == [0, 0, 0, 0]


def test_the_box_and_the_slider_with_keys(visit):
    visit = visit()
    visit.choose(encoded(spotted()))
    for name, value in zip(("x0", "y0", "x1", "y1"), (50, 40, 150, 140), strict=True):
        visit.page.focus(f"#{name}")
        visit.page.keyboard.type(str(value))
    assert visit.box() == [50, 40, 150, 140]
    for _ in range(30):  # with the tabulator, wherever it is in the order
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("() => document.activeElement.classList.contains('box')"):
            break
    for key in ("ArrowRight", "ArrowDown", "Alt+ArrowLeft", "Shift+ArrowRight", "Shift+ArrowUp"):
        visit.page.keyboard.press(key)
    assert visit.box() == [52, 43, 155, 140]
    assert "52, 43, 155, 140" in visit.page.get_attribute(".box", "aria-label")
    visit.page.focus("#level")
    visit.page.keyboard.press("End")
    assert visit.page.inner_text("#level-text") == "99.9 %"


def test_a_telephone(visit):
    visit = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    visit.choose(encoded(spotted()))
    assert visit.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    touch = visit.page.context.new_cdp_session(visit.page)
    (x0, y0), (x1, y1) = visit.at(319, 239), visit.at(200, 150)
    for kind, points in (
        ("touchStart", [{"x": x0 - 4, "y": y0 - 4}]),
        ("touchMove", [{"x": (x0 + x1) / 2, "y": (y0 + y1) / 2}]),
        ("touchMove", [{"x": x1 - 4, "y": y1 - 4}]),
        ("touchEnd", []),
    ):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        visit.page.evaluate("() => new Promise(requestAnimationFrame)")
    np.testing.assert_allclose(visit.box(), [-0.5, -0.5, 200, 150], atol=2)


# --- names, forms, colours


def test_names_appear_under_the_pointer(visit):
    visit = visit()
    visit.choose(encoded(spotted()))
    visit.page.mouse.move(*visit.at(*visit.circles()[30]))
    assert visit.page.inner_text("#tip").startswith(f"{NAMES[30]} ±")
    visit.page.mouse.move(0, 0)
    assert visit.page.locator("#tip").is_hidden()
    visit.page.hover("#rows tr:nth-child(8)")
    assert visit.page.inner_text("#tip").startswith(NAMES[7])


def test_every_control_has_a_name(visit):
    visit = visit()
    visit.choose(encoded(spotted()))
    script = """all => all.filter(e => e.checkVisibility() && !e.labels?.length
        && !e.getAttribute('aria-label') && !e.textContent.trim()).map(e => e.id)"""
    assert (
        visit.page.eval_on_selector_all("input, select, button, output, [tabindex]", script) == []
    )
    assert visit.page.get_attribute("html", "lang") == "en"
    policy = visit.page.get_attribute("meta[http-equiv]", "content")
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(visit, scheme):
    page = visit(color_scheme=scheme).page
    script = """() => ['back', 'card', 'ink', 'soft', 'accent', 'on-accent', 'bad', 'bad-back'].map(
        name => getComputedStyle(document.documentElement).getPropertyValue('--' + name))"""
    values = [int(value.strip()[1:], 16).to_bytes(3, "big") for value in page.evaluate(script)]
    linear = (np.array([list(value) for value in values]) / 255) ** 2.2
    back, card, ink, soft, accent, on_accent, bad, bad_back = linear @ [0.2126, 0.7152, 0.0722]
    pairs = [(ink, back), (ink, card), (soft, back), (soft, card), (on_accent, accent)]
    for first, second in [*pairs, (bad, bad_back)]:
        high, low = max(first, second), min(first, second)
        assert (high + 0.05) / (low + 0.05) >= 4.5
    assert (back < 0.1) == (scheme == "dark")


def test_labels_and_numbers_of_versions(visit):
    for version, path in (("stable", "/labels/stable"), ("3", "/versions/3")):
        found = visit(f"?version={version}")
        found.choose(encoded(spotted()))
        assert any(url.endswith(f"/v1/models/wflw{path}:predict") for url in found.urls)
        assert "version 3" in found.page.inner_text("#model-state")


# --- the camera


def test_the_camera_lives(visit):
    visit = visit()
    visit.page.click("#camera")
    visit.page.wait_for_selector(".landmarks circle", state="attached")
    first = visit.page.inner_text("#outcome")
    visit.page.wait_for_function(
        "text => outcome.textContent && outcome.textContent !== text", arg=first
    )
    visit.page.click("#shoot")
    visit.page.wait_for_selector("#camera-controls", state="hidden")
    visit.settle()
    found = visit.download()
    assert found["picture"]["name"] == "camera" and found["picture"]["width"] >= 320
    assert len(visit.circles()) == 98


# --- what goes wrong


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("invalid", "The model could not use the picture or the box"),
        ("refusing", "The server refused the request (400): at most 256 images in a request"),
        ("busy", "The server is busy; try again (503): 4 requests are being computed"),
        ("absent", "The server has no such model or version (404): Servable not found"),
    ],
)
def test_errors_in_words(visit, model, words):
    visit = visit(f"?model={model}", complains=True)
    visit.choose(encoded(spotted()))
    visit.expect(words)
    assert not visit.page.locator(".landmarks circle").count()
    assert visit.page.is_disabled("#download")


def test_a_file_that_is_no_picture(visit):
    visit = visit()
    visit.page.set_input_files("#file", {"name": "a.txt", "mimeType": "", "buffer": b"no picture"})
    visit.expect("a.txt is not a picture that the browser can show.")


def test_another_server_in_the_settings(visit, server):
    visit = visit("?url=http://127.0.0.1:9", complains=True)
    visit.expect("No server answers at http://127.0.0.1:9.")
    visit.page.fill("#url", str(server.base_url))
    visit.page.click("#settings-form button")
    visit.page.wait_for_selector("text=wflw, version 3, 98 landmarks")
    assert visit.page.locator("#message").is_hidden()
    visit.choose(encoded(spotted()))
    assert len(visit.circles()) == 98


def test_a_page_from_elsewhere(visit, server, elsewhere):
    refused = visit(f"?url={server.base_url}", url=elsewhere, complains=True)
    refused.expect("--rest_api_enable_cors_support=true")
    methods, server = [], application(cors=True)

    class Recording(server.RequestHandlerClass):
        def answer(self):
            methods.append(self.command)
            super().answer()

        do_GET = do_POST = do_OPTIONS = answer

    server.RequestHandlerClass = Recording
    with running(server) as open_server:
        welcome = visit(f"?url={open_server.base_url}", url=elsewhere, complains=True)
        welcome.choose(encoded(spotted()))
        assert len(welcome.circles()) == 98 and welcome.complaints == []
        assert set(methods) == {"GET", "POST"}  # no OPTIONS, which TensorFlow Serving may not know
        asked = {httpx.URL(url).netloc for url in welcome.urls if not url.startswith("blob:")}
        assert asked == {httpx.URL(elsewhere).netloc, open_server.base_url.netloc}
