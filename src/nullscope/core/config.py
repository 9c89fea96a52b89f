"""Parameters: frozen, typed, validated once.

Every section of ``params.yaml`` has a `Params` subclass in the module that uses it; `load_params` reads one section. An
unknown key, a missing one or a value of the wrong type stops the program with a message that names the section, what was
found and what is known.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PARAMS_FILE = Path("params.yaml")


class ParamsError(ValueError):
    """A parameter is missing, unknown or of the wrong type."""


class Params(BaseModel):
    """Base of every parameter section: immutable, and strict about unknown keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


P = TypeVar("P", bound=Params)


def validate(section: str, values: Any, model: type[P]) -> P:
    """Return ``values`` as a `model`. Raises `ParamsError` naming ``section`` and every offending key."""
    if not isinstance(values, dict):
        raise ParamsError(f"parameters `{section}`: expected a mapping, found {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ParamsError(_explain(section, error, model)) from None


def load_params(section: str, model: type[P], *, path: Path = PARAMS_FILE) -> P:
    """Return the section at the dotted name ``section`` (such as ``detectors.ns_net``) of the YAML file ``path``.

    Raises `ParamsError` if the file or the section does not exist, or its values do not fit ``model``.
    """
    return validate(section, section_of(read_params(path), section, path), model)


def read_params(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Return the whole parameter file as plain dictionaries. Raises `ParamsError` if it cannot be read."""
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))  # as DVC reads it: 1e-4 is a number
    except OSError as error:
        raise ParamsError(f"{path}: {error.strerror}; run this from the project's root") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not UTF-8: {error}") from None
    except YAMLError as error:
        raise ParamsError(f"{path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: expected a mapping of sections, found {type(values).__name__}")
    return values


def section_of(values: dict[str, Any], section: str, path: Path = PARAMS_FILE) -> Any:
    """Return what lies at the dotted name ``section``. Raises `ParamsError` that suggests a near name."""
    found: Any = values
    for depth, key in enumerate(section.split(".")):
        if not isinstance(found, dict) or key not in found:
            known = sorted(found) if isinstance(found, dict) else []
            parent = ".".join(section.split(".")[:depth]) or str(path)
            raise ParamsError(f"{parent} has no `{key}`{suggest(key, known)}")
        found = found[key]
    return found


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: what is known, and the one that may have been meant."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    return f"; known: {', '.join(known) or 'none'}{hint}"


def leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what nested parameters hold under their dotted names, in order: ``("lora.rank", 6)``."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{below}", leaf) for below, leaf in leaves(value))
        else:
            yield str(key), value


def _explain(section: str, error: ValidationError, model: type[Params]) -> str:
    lines = [f"parameters `{section}` do not fit {model.__name__}:"]
    for problem in error.errors():
        at = problem["loc"]
        name = ".".join(str(part) for part in at)
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {name}: unknown{suggest(str(at[-1]), sorted(_model_at(model, at[:-1]).model_fields))}")
        else:
            lines.append(f"  {name}: {problem['msg'].lower()}, found {problem['input']!r}")
    return "\n".join(lines)


def _model_at(model: type[Params], loc: tuple[int | str, ...]) -> type[Params]:
    """Return the model of the inner section at ``loc``, or the last one found on the way."""
    for part in loc:
        field = model.model_fields.get(str(part))
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Params)), model)
    return model
