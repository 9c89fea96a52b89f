"""The page in a real browser: images of every format, forty at once and bad ones; by keyboard, on a phone, offline."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import ARTEFACTS, BROWSER, NEEDS_BROWSER
from conftest import noise_image
from PIL import Image

pytestmark = NEEDS_BROWSER
PHONE = {"width": 390, "height": 844}
MODELS = 2
FORMATS = ("png", "jpg", "webp", "gif", "bmp", "tiff", "avif", "heic", "jxl")


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser, server) -> Iterator[object]:
    """The page, open; whatever it asks of another server, and every fault of its scripts, fails the test."""
    opened = browser.new_page(viewport=PHONE)
    opened.faults, opened.addresses = [], []
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.on("console", lambda said: opened.faults.append(said.text) if said.type == "error" else None)
    opened.on("request", lambda asked: opened.addresses.append(asked.url))
    opened.goto(server.url)
    yield opened
    assert opened.faults == []
    assert all(address.startswith((server.url, "data:", "blob:")) for address in opened.addresses)
    opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Forty files: of every format that is read, and five that are no images."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    pytest.importorskip("pillow_jxl")
    folder = tmp_path_factory.mktemp("files")
    picture = Image.open(io.BytesIO(noise_image(0, 1, side=96)))
    for at in range(35):
        kind = FORMATS[at % len(FORMATS)]
        picture.rotate(at).save(folder / f"{at:02d}.{kind}", {"jpg": "JPEG", "heic": "HEIF"}.get(kind, kind.upper()))
    for at in range(5):
        (folder / f"bad {at}.png").write_bytes([b"", b"text", b"\x89PNG", b"<html>", b"\xff\xd8\xff"][at])
    return sorted(folder.iterdir())


def all_scored(page, count: int) -> None:
    word = f"All {count} images scored." if count > 1 else "1 image scored."
    page.locator("#state", has_text=word).wait_for(timeout=60_000)


def test_forty_files_at_once_have_scores_or_reasons(page, files):
    page.set_input_files("#files", files)
    all_scored(page, len(files))
    items = page.locator("#results > li")
    assert items.count() == len(files) == 40
    for at, file in enumerate(files):
        item = items.nth(at)
        assert item.locator("h3").first.inner_text() == file.name
        assert item.locator(".refused" if file.name.startswith("bad") else ".answer").count() == MODELS
        assert item.locator("meter").count() == (0 if file.name.startswith("bad") else MODELS)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], "nothing is wider than a phone"
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTEFACTS / "serve-phone.png"))
    with page.expect_download() as download:
        page.click("#csv")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(), newline="")))
    assert len(rows) == MODELS * 40 and {row["model"] for row in rows} == {"clip_lora-0", "linear_probe-0"}
    assert all(bool(row["refused"]) == row["file"].startswith("bad") == (not row["logit"]) for row in rows)
    page.click("#clear")
    assert items.count() == 0


def test_every_answer_has_its_honest_sentence(page, files, judges):
    page.set_input_files("#files", files[0])
    all_scored(page, 1)
    for at, judge in enumerate(judges.values()):
        box = page.locator("#results .scores > div").nth(at)
        answer = judge.predict(files[0]).answer
        assert box.locator(".answer").inner_text() == answer
        words = {"generated": "Of real photographs", "real": "was not trained on", "not sure": "tells neither kind"}[answer]
        assert words in box.inner_text()
    assert page.locator("#models li").count() == MODELS and "200 reals" in page.locator("#models").inner_text()


def test_the_parts_that_spoke_for_it_are_drawn_and_told(page, files):
    page.set_viewport_size({"width": 1280, "height": 900})
    page.set_input_files("#files", files[0])
    all_scored(page, 1)
    page.locator("#results button").first.click()
    canvas = page.locator("#results canvas").first
    canvas.wait_for(timeout=60_000)
    assert "parts. " in canvas.get_attribute("aria-label")
    assert "Each part was blanked in turn" in page.locator("figcaption").inner_text()
    page.screenshot(path=str(ARTEFACTS / "serve-desktop.png"), full_page=True)


def test_by_keyboard_alone(page, files):
    """Tab reaches what can be done, in the order of the page."""
    page.set_input_files("#files", files[0])
    all_scored(page, 1)
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert reached[:4] == ["files", "key", "csv", "clear"] and reached[4] == "Which parts spoke for it?"


def test_a_pasted_image_is_scored(page):
    page.evaluate("""async () => {
      const canvas = new OffscreenCanvas(64, 64);
      canvas.getContext("2d").fillRect(0, 0, 40, 40);
      const data = new DataTransfer();
      data.items.add(new File([await canvas.convertToBlob()], "shot.png", {type: "image/png"}));
      dispatchEvent(new ClipboardEvent("paste", {clipboardData: data}));
    }""")
    all_scored(page, 1)
    assert page.locator("#results .answer").count() == MODELS


def test_screen_readers_are_told(page):
    tree = page.locator("body").aria_snapshot()
    for words in (
        'heading "nullscope"',
        'heading "Results"',
        "status",
        'button "choose files"',
        'textbox "Key, if this server asks for one"',
    ):
        assert words in tree or words.replace("button", "text") in tree, tree
