"""A headless browser, and where its pictures lie afterwards."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARTEFACTS = Path(__file__).parent / "artefacts"
NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH"),
]
OFFLINE = ("--proxy-server=127.0.0.1:9", "--proxy-bypass-list=<-loopback>")  # it reaches nothing but files


def browse(folder: Path, address: str, *options: str, window: str = "800,600") -> str:
    """Open an address in a browser with a profile in ``folder``, and return what it prints."""
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
    own = (f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars", f"--window-size={window}")
    done = subprocess.run([BROWSER, *quiet, *own, *options, address], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
