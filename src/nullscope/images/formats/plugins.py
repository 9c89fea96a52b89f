"""Formats that Pillow reads with a plugin, which is an extra of this package: HEIC, as phones write it, and JPEG XL."""

from __future__ import annotations

from importlib import import_module

from nullscope.images.formats.errors import unsupported

# What a file looks like -> the extra, its module, and Pillow's name of the format.
PLUGINS = {"HEIC": ("heif", "pillow_heif", "HEIF"), "JPEG XL": ("jxl", "pillow_jxl", "JXL")}


def register(kind: str) -> str:
    """Make Pillow read a kind of `PLUGINS`; return its name of the format. Raises `ImageError` if the plugin is not installed."""
    extra, module, format = PLUGINS[kind]
    try:
        plugin = import_module(module)
    except ImportError:
        raise unsupported(kind, f"`pip install 'nullscope[{extra}]'` and it is read") from None
    if kind == "HEIC":
        plugin.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return format
