"""Pillow's switches, which belong to the whole process."""

from __future__ import annotations

import threading
import warnings

from PIL import Image, ImageFile


class PillowSwitches:
    """Pillow's process-wide switches: ours while any thread decodes here, the caller's own again afterwards.

    Its limit on pixels is lifted since ours stands in its place; a training script that switched truncated files on must not
    change what is accepted here; and its warnings (damaged EXIF, mostly) must not become errors under ``-W error``.
    """

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.users:
                self.theirs = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
            self.users += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.filters.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self.theirs


SWITCHES = PillowSwitches()
