"""Read the bytes of an indexed image, from a file or from an archive, and check that they are those that were indexed."""

from __future__ import annotations

from pathlib import Path

from nullscope.archives.reading import read_source
from nullscope.core.contracts import ContractError, image_id


def read_original(source: Path, expected_id: str) -> bytes:
    """Return the bytes of an indexed image; ``source`` is a file or ``<archive>::<member>``.

    Raises `ContractError` if their SHA-256 is not ``expected_id``. So in dvc.yaml a stage that reads originals depends on the
    index and not on the code that reads archives: other code gives it the same bytes, or an error.
    """
    data = read_source(source)
    if image_id(data) != expected_id:
        raise ContractError(f"{source} has changed since it was indexed; run `dvc repro index`")
    return data
