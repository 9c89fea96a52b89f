"""README and docs: links lead somewhere, every page is reached, and the commands that they show exist."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT

from nullscope.cli import main

PAGES = sorted([ROOT / "README.md", ROOT / "bench/README.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
README_LINES = 140


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as a viewer of Markdown makes them."""
    heads = re.findall(r"^#+ (.*)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links(page: Path) -> list[tuple[Path, str]]:
    """The files that a page links to, with the anchors in them."""
    found = []
    for target in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if not re.match(r"\w+:", target):
            path, _, anchor = target.partition("#")
            found.append(((page.parent / path).resolve() if path else page, anchor))
    return found


def commands(page: Path) -> list[list[str]]:
    """The words of every line of code that begins with ``nullscope`` or ``dvc exp run``."""
    blocks = re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    own = [line for line in lines if re.search(r"(^|\| )nullscope |^dvc exp run", line)]
    return [shlex.split(re.sub(r"^.*\| (?=nullscope)", "", line), comments=True) for line in own]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target, anchor in links(page):
        assert target.exists(), f"{page.name} links to {target}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name}: no heading #{anchor} in {target.name}"


def test_every_page_is_reached_from_the_readme():
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        ahead += [target for target, _ in links(page) if target.suffix == ".md" and target not in reached]
    assert set(PAGES) <= reached


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_options_exist(page):
    for words in commands(page):
        if words[0] == "nullscope":
            command = main.commands.get(words[1])
            assert command, f"{page.name}: nullscope has no command {words[1]}"
            options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
            used = {word.partition("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
            assert used <= options, f"{page.name}: {words[1]} has no {used - options}"
        for value in (word for before, word in pairwise(words) if before == "-S"):
            name, _, choice = value.partition("=")
            folder = ROOT / "conf" / name
            if folder.is_dir() and re.fullmatch(r"\w+", choice):
                assert (folder / f"{choice}.yaml").is_file(), f"{page.name}: no conf/{name}/{choice}.yaml"
