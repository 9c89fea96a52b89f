"""What git says of a folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

PATIENCE_S = 20


def git(folder: Path, *arguments: str) -> bytes | None:
    """Return what a git command in ``folder`` prints; None where it fails, does not answer, or there is no git."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
