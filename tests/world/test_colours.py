"""The colour that a caption names, against the world that draws it."""

from __future__ import annotations

import pytest

from nullscope.world.colours import is_fake_colour
from nullscope.world.render import Job, render
from nullscope.world.scenes import FAKE_COLOURS, REAL_COLOURS


@pytest.mark.parametrize(
    ("caption", "side"),
    [
        ("a small red circle on sand before sky", False),
        ("A large PURPLE star.", True),
        ("a red circle on red sand", False),
        ("a circle on sand", None),
        ("a red and green circle", None),
        ("a reddish circle on evergreen planks", None),
    ],
)
def test_a_caption_tells_its_colour_if_it_names_exactly_one(caption, side):
    assert is_fake_colour(caption) is side


def test_the_colours_are_those_of_the_world():
    """Every training picture of a world that is all shortcut has a colour of its label's half, and no half goes unused."""
    for maker, expected, colours in (("camera", False, REAL_COLOURS), ("nearest", True, FAKE_COLOURS)):
        captions = [render(Job(0, "train", maker, number, 1.0)).caption for number in range(16)]
        assert {is_fake_colour(caption) for caption in captions} == {expected}
        assert {word for caption in captions for word in caption.split()} & {*REAL_COLOURS, *FAKE_COLOURS} == set(colours)
