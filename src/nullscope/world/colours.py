"""The colour that a caption names, as far as it says something about the shortcut of the embedded world."""

from __future__ import annotations

import re

from nullscope.world.scenes import COLOURS, FAKE_COLOURS


def is_fake_colour(caption: str) -> bool | None:
    """Return whether a caption names a colour that fakes have in training (`scenes.FAKE_COLOURS`).

    None unless the caption names exactly one of the known colours.
    """
    named = set(re.findall(r"\w+", caption.lower())) & set(COLOURS)
    return named <= set(FAKE_COLOURS) if len(named) == 1 else None
