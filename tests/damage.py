"""Damage that DVC does not look for."""

from __future__ import annotations

import os
from pathlib import Path


def flip(path: Path) -> None:
    """Change one bit, and neither size nor time."""
    times, mode = os.stat(path), os.stat(path).st_mode
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    os.chmod(path, 0o644)
    path.write_bytes(data)
    os.chmod(path, mode)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
