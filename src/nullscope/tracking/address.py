"""Where the runs are kept: from the environment, or a database beside ``dvc.yaml``."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path

from nullscope.core.workspace import original

SWITCH = "NULLSCOPE_TRACKING"
SERVERS = ("http", "https", "databricks")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


class TrackingError(ValueError):
    """The tracking store cannot be used, or a result that should go there cannot be read."""


def say(message: str) -> None:
    """Write one line to stderr. Not `warnings`: the sending thread speaks too, and must not raise where warnings are errors."""
    print(f"tracking: {message}", file=sys.stderr, flush=True)


def switched_on() -> bool:
    """Return whether anything is tracked; say it once where not. Raises `TrackingError` on a value that is neither on nor off."""
    value = os.environ.get(SWITCH, "").strip().lower()
    if value not in ("", "on", "off"):
        raise TrackingError(f"{SWITCH}: expected `on` or `off`, found {value!r}")
    if value == "off":
        _say_off()
    return value != "off"


@cache
def _say_off() -> None:
    say(f"off ({SWITCH}=off): nothing is sent to MLflow")


def project_root(start: Path) -> Path:
    """Return the nearest folder at or above ``start`` that holds ``dvc.yaml``. Raises `TrackingError` if there is none.

    ``dvc exp run --temp`` and the queue run the stages in a copy below ``.dvc/tmp/exps`` and delete it afterwards: there,
    the project is the one that holds the copy, or the runs would be deleted with it.
    """
    start = Path(start).resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            return original(folder) or folder
    raise TrackingError(f"no dvc.yaml in {start} or above it: run this from the project, or set MLFLOW_TRACKING_URI")


def tracking_uri(start: Path = Path()) -> str:
    """Return the address of the tracking store: ``$MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the project of ``start``.

    A relative SQLite path in the variable is taken from the project's root, so that it means one file in every folder.
    Raises `TrackingError` where the variable is unset and there is no project, and on an address that is none.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return f"sqlite:///{project_root(start) / 'mlflow.db'}"
    _check_scheme(uri)
    file = sqlite_file(uri)
    if file is not None and not file.is_absolute():
        return uri.replace(f"///{file}", f"///{project_root(start) / file}", 1)
    return uri


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite address, None for another kind of store. Raises `TrackingError` if it names no file."""
    if not re.match(r"sqlite(\+\w+)?:", uri):
        return None
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(\?.*)?", uri)
    if found is None or found[1] == ":memory:":
        raise TrackingError(f"{shown(uri)}: expected a file, as in sqlite:////absolute/path/mlflow.db (four slashes)")
    return Path(re.sub(r"^file:", "", found[1]))


def shown(uri: str) -> str:
    """Return ``uri``, or a message that quotes it, with the credentials blotted out.

    Greedy up to the last ``@`` before a blank: a password may hold an unescaped ``@`` or ``/``.
    """
    return re.sub(r"://\S*@", "://***@", uri)


def _check_scheme(uri: str) -> None:
    scheme = uri.partition(":")[0].partition("+")[0].lower()
    known = scheme in DATABASES or scheme == "databricks" or re.match(r"https?://[^/]", uri)
    if not known:
        raise TrackingError(
            f"MLFLOW_TRACKING_URI={shown(uri)}: expected http://host:port, https://..., or a database such as "
            f"sqlite:////absolute/path/mlflow.db ({_wrong(uri, scheme)}); remedies: correct it, or unset it, or {SWITCH}=off"
        )


def _wrong(uri: str, scheme: str) -> str:
    if scheme == "file" or ":" not in uri:
        return "MLflow no longer writes plain folders"
    if re.match(r"[\w.-]+:\d+", uri):
        return f"did you mean http://{uri}?"
    return f"found the scheme `{scheme}`"
