"""The detectors: the name of a module here is the name of the detector everywhere (conf, stages, models, metrics)."""

from __future__ import annotations

import difflib
import pkgutil
import zlib
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nullscope.detectors.base import Context, Detector

NAMES = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def load(name: str) -> ModuleType:
    """Return the page of a detector: a module with ``Config`` and ``Detector``. Raises `ValueError` on an unknown name."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no detector {name!r}; known: {', '.join(NAMES)}{hint}")
    return import_module(f"{__name__}.{name}")


def build(name: str, params: dict[str, Any], context: Context, *, seed: int) -> Detector:
    """Return a fresh detector; what is random in it is drawn from (name, seed). Raises `ParamsError` on bad parameters."""
    import torch

    from nullscope.config import validate

    page = load(name)
    config = validate(f"detectors.{name}", params, page.Config)
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(f"init/{name}/{seed}".encode()))
        return page.Detector(config, context)
