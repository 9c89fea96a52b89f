"""Detectors of AI-generated images: `load` gives one that was trained."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nullscope.prediction import Judge


def load(
    folder: str | os.PathLike,
    device: str | None = None,
    *,
    workers: int = 0,
    verify: bool = False,
    anyway: bool = False,
    fpr: float | None = None,
    band: bool = True,
) -> Judge:
    """Return the trained detector in ``folder``, ready to judge images: `nullscope.prediction.Judge` says how.

        from nullscope import load
        load("models/ns_net-0").predict("photo.jpg").score        # from 0, a photograph, to 1, generated

    Raises `ValueError` if the folder is no trained detector.
    """
    from nullscope.prediction import Judge  # torch takes seconds to import: not before it is needed

    return Judge(folder, device, workers=workers, verify=verify, anyway=anyway, fpr=fpr, band=band)
