"""The page in a real browser: nothing wider than the screen, nothing fetched, everything legible; pictures of it to look at.

A headless window cannot be as narrow as a phone, so the page stands in a frame of the width wanted. A script in a copy of it
measures it and tells the page around it. Pictures and a print lie in tests/artefacts/ afterwards.
"""

from __future__ import annotations

import html
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from browser import ARTEFACTS, NEEDS_BROWSER, OFFLINE, browse

WIDTHS = {"desktop": 1280, "phone": 390}  # CSS pixels
NARROWEST = 500  # of a headless window
TALLEST = 16_000  # of a picture, pixels
LEAST_CONTRAST = 4.5  # WCAG 2.1 AA, of text of any size

pytestmark = NEEDS_BROWSER

MEASURE = """
const rgba = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]).concat(1);
const background = element => {
  if (!element) return [255, 255, 255, 1];
  const own = rgba(getComputedStyle(element).backgroundColor);
  return own[3] === 1 ? own : over(own, background(element.parentElement));
};
const light = colour => {
  const [r, g, b] = colour.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const contrast = element => {
  const below = background(element), text = over(rgba(getComputedStyle(element).color), below);
  const [low, high] = [light(text), light(below)].sort((a, b) => a - b);
  return (high + .05) / (low + .05);
};
const named = element => element.tagName + "." + element.className + " " + element.textContent.trim().slice(0, 40);
const linesOf = element => {
  const range = document.createRange();
  range.selectNodeContents(element);
  return new Set([...range.getClientRects()].map(box => Math.round(box.bottom / 4))).size;
};
const all = selector => [...document.querySelectorAll(selector)];
addEventListener("load", () => {
  const shut = document.documentElement.scrollHeight;
  all("details").forEach(details => details.open = true);
  const words = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) if (walker.currentNode.nodeValue.trim()) words.push(walker.currentNode.parentElement);
  const wide = all("body *").filter(e => !e.closest(".scroll") && e.getBoundingClientRect().right > innerWidth + .5);
  const found = {
    width: innerWidth, scrollWidth: document.documentElement.scrollWidth, wide: wide.map(named), height: shut,
    texts: words.length, pale: words.filter(e => contrast(e) < LEAST).map(e => contrast(e).toFixed(2) + " " + named(e)),
    requests: performance.getEntriesByType("resource").map(e => e.name).filter(name => !name.startsWith("data:")),
    links: all("[src], [href]").map(e => e.getAttribute("src") ?? e.getAttribute("href")).map(link => link.slice(0, 20)),
    broken: all("img").filter(e => !e.naturalWidth || !(e.alt || "").trim()).map(named),
    unnamed: all("table").filter(e => !e.ariaLabel && !(e.caption || {textContent: ""}).textContent.trim()).map(named),
    headers: all("th").filter(e => !e.scope).map(named),
    headings: all("h1, h2, h3, h4, h5, h6").map(e => [Number(e.tagName[1]), e.textContent]),
    squeezed: all("td, th").filter(e => e.scrollWidth > e.clientWidth + 1).map(named),
    crumbled: all("td.text, tbody th").filter(e => linesOf(e) > Math.max(2, e.textContent.trim().length / 4)).map(named),
  };
  all("details").forEach(details => details.open = false);
  parent.postMessage(JSON.stringify(found), "*");
});
"""
AROUND = """<!DOCTYPE html><style>body {{ margin: 0 }} iframe {{ display: block; border: 0 }}</style>
<iframe src="{page}" width="{width}" height="{height}"></iframe><pre hidden></pre>
<script>addEventListener("message", event => document.querySelector("pre").textContent = event.data)</script>
"""


def framed(folder: Path, page: Path, width: int, height: int) -> Path:
    """Write a page that shows another one in a frame, and return its path."""
    around = folder / f"around-{width}.html"
    around.write_text(AROUND.format(page=page.as_uri(), width=width, height=height), encoding="utf-8")
    return around


def measured(folder: Path, page: Path, width: int) -> dict:
    """Return what `MEASURE` finds on a page in a frame of ``width``."""
    copy = folder / "measured.html"
    script = f"<script>const LEAST = {LEAST_CONTRAST};{MEASURE}</script>"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    dom = browse(folder, framed(folder, copy, width, 900).as_uri(), *OFFLINE, "--dump-dom", window=f"{max(width, NARROWEST)},900")
    return json.loads(html.unescape(re.search("<pre[^>]*>(.*?)</pre>", dom, re.DOTALL)[1]))


@pytest.fixture(scope="module")
def pages(project, papers_project) -> dict[str, Path]:
    return {"plain": project[0] / "reports/index.html", "papers": papers_project / "reports/index.html"}


@pytest.fixture(scope="module", params=[(name, screen) for name in ("plain", "papers") for screen in WIDTHS], ids="-".join)
def found(request, pages, tmp_path_factory) -> dict:
    """The measures of one page on one screen, of which a picture is taken."""
    name, screen = request.param
    folder, width = tmp_path_factory.mktemp("browser"), WIDTHS[screen]
    measures = measured(folder, pages[name], width)
    height = min(measures["height"], TALLEST)
    ARTEFACTS.mkdir(exist_ok=True)
    picture = ARTEFACTS / f"{name}-{screen}.png"
    around = framed(folder, pages[name], width, height)
    browse(folder, around.as_uri(), *OFFLINE, f"--screenshot={picture}", window=f"{max(width, NARROWEST)},{height}")
    assert picture.stat().st_size > 50_000
    return measures | {"expected": width}


def test_nothing_is_wider_than_the_screen_but_what_scrolls(found):
    assert found["width"] == found["expected"], "the frame is the screen"
    assert found["scrollWidth"] <= found["width"]
    assert not found["wide"]
    assert not found["squeezed"]
    assert not found["crumbled"], "a cell with hardly a letter in a line"


def test_nothing_is_fetched_and_no_link_leads_away(found):
    assert found["requests"] == []
    assert {link[:1] for link in found["links"]} == {"#", "d"}
    assert all(link.startswith(("#", "data:")) for link in found["links"])


def test_every_text_stands_out_from_its_background(found):
    assert found["texts"] > 500
    assert not found["pale"]


def test_pictures_tables_and_headings_are_told_to_who_cannot_see_them(found):
    assert not found["broken"]
    assert not found["unnamed"]
    assert not found["headers"]
    levels = [level for level, _ in found["headings"]]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


@pytest.mark.parametrize("name", ["plain", "papers"])
def test_it_prints(name, pages, tmp_path):
    ARTEFACTS.mkdir(exist_ok=True)
    out = ARTEFACTS / f"{name}.pdf"
    browse(tmp_path, pages[name].as_uri(), *OFFLINE, f"--print-to-pdf={out}", "--no-pdf-header-footer")
    assert out.read_bytes().startswith(b"%PDF")
    assert len(re.findall(rb"/Type */Page\b", out.read_bytes())) > 3
