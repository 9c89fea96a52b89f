"""The detectors: the name of a module here is the name of the detector everywhere (conf, stages, models, metrics).

A variant is a section ``detectors.<name>`` with a key ``page`` that names the module: another preset of a paper, or a row of an
ablation. It is trained, scored and compared beside the others under its own name.
"""

from __future__ import annotations

import difflib
import pkgutil
import zlib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nullscope.detectors.base import Context, Detector

NAMES = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def page_of(name: str, params: dict[str, Any]) -> str:
    """Return the name of the module that the detector ``name`` with these parameters is. Raises `ValueError` without any."""
    if not isinstance(params, dict):
        raise ValueError(f"parameters `detectors.{name}`: expected a mapping, found {type(params).__name__}")
    return params.get("page", name)


def file_of(page: str) -> Path:
    """Return the file of a page. Raises `ValueError` on an unknown one."""
    if page not in NAMES:
        near = difflib.get_close_matches(str(page), NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no detector {page!r}; known: {', '.join(NAMES)}{hint}")
    return Path(__file__).with_name(f"{page}.py")


def load(page: str) -> ModuleType:
    """Return the page of a detector: a module with ``Config`` and ``Detector``. Raises `ValueError` on an unknown name."""
    return import_module(f"{__name__}.{file_of(page).stem}")


def build(name: str, params: dict[str, Any], context: Context, *, seed: int) -> Detector:
    """Return a fresh detector. Raises `ParamsError` on bad parameters.

    What is random in it is drawn from its page and ``seed``, so that the variants of a page begin alike.
    """
    import torch

    from nullscope.config import validate

    page = page_of(name, params)
    module = load(page)
    config = validate(f"detectors.{name}", {key: value for key, value in params.items() if key != "page"}, module.Config)
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(f"init/{page}/{seed}".encode()))
        return module.Detector(config, context)
