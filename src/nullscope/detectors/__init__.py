"""The detectors: a module here is a method, and its name is the name of the detector everywhere (conf, stages, models, metrics).

A variant is a section ``detectors.<name>`` with a key ``method`` that names the module: another preset of a paper, or a row of
an ablation. It is trained, scored and compared beside the others under its own name.
"""

from __future__ import annotations

import pkgutil
import zlib
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nullscope.core.config import suggest

if TYPE_CHECKING:
    from nullscope.detectors.base import Context, Detector

SHARED = ("base", "clip", "pixels")  # what methods share, and no methods
NAMES = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED)


def method_of(name: str, params: dict[str, Any]) -> str:
    """Return the method of the detector ``name`` with these parameters. Raises `ValueError` if they are no parameters."""
    if not isinstance(params, dict):
        raise ValueError(f"parameters `detectors.{name}`: expected a mapping, found {type(params).__name__}")
    return params.get("method", name)


def method_named(name: str) -> str:
    """Return the method whose name that of a model folder begins with: ``npr`` of ``npr_official``.

    Raises `ValueError` if there is none.
    """
    known = [method for method in NAMES if f"{name}_".startswith(f"{method}_")]
    if not known:
        raise ValueError(
            f"run.official: {name!r}: expected a name that begins with its detector's, such as npr_official{suggest(name, NAMES)}"
        )
    return max(known, key=len)


def module_name(method: str) -> str:
    """Return the full name of the module of a method. Raises `ValueError` on an unknown method."""
    if method not in NAMES:
        raise ValueError(f"no detector {method!r}{suggest(str(method), NAMES)}")
    return f"{__name__}.{method}"


def load(method: str) -> ModuleType:
    """Return the module of a method: it has ``Config`` and ``Detector``. Raises `ValueError` on an unknown method."""
    return import_module(module_name(method))


def build(name: str, params: dict[str, Any], context: Context, *, seed: int) -> Detector:
    """Return a fresh detector. Raises `ParamsError` on bad parameters.

    What is random in it is drawn from its method and ``seed``, so that the variants of a method begin alike.
    """
    import torch

    from nullscope.core.config import validate

    method = method_of(name, params)
    module = load(method)
    config = validate(f"detectors.{name}", {key: value for key, value in params.items() if key != "method"}, module.Config)
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(f"init/{method}/{seed}".encode()))
        return module.Detector(config, context)
