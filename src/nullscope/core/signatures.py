"""What a file is by its first bytes: the formats that lie in data sets under an image's name."""

from __future__ import annotations

import re

# Name, offset and bytes; the most telling first.
SIGNATURES = (
    ("JPEG-LS", 0, b"\xff\xd8\xff\xf7"),
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("WEBP", 8, b"WEBP"),
    ("GIF", 0, b"GIF8"),
    ("camera raw file (Canon CR2)", 8, b"CR\x02"),
    ("camera raw file (Olympus ORF)", 0, b"IIRO"),
    ("camera raw file (Olympus ORF)", 0, b"IIRS"),
    ("camera raw file (Panasonic RW2)", 0, b"IIU\0"),
    ("camera raw file (Fujifilm RAF)", 0, b"FUJIFILMCCD-RAW"),
    ("camera raw file (Sigma X3F)", 0, b"FOVb"),
    ("camera raw file (Canon CR3)", 4, b"ftypcrx"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("TIFF", 0, b"II+\0"),  # BigTIFF
    ("TIFF", 0, b"MM\0+"),
    ("AVIF", 4, b"ftypavif"),
    ("AVIF", 4, b"ftypavis"),
    *(("HEIC", 4, b"ftyp" + brand) for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")),
    ("JPEG XL", 0, b"\xff\x0a"),
    ("JPEG XL", 4, b"JXL \r\n\x87\n"),
    ("JPEG 2000", 4, b"jP  "),
    ("JPEG 2000", 0, b"\xff\x4f\xff\x51"),
    ("Photoshop document", 0, b"8BPS"),
    ("OpenEXR image", 0, b"v/1\x01"),
    ("Radiance HDR image", 0, b"#?RADIANCE"),
    ("DDS texture", 0, b"DDS "),
    ("QOI image", 0, b"qoif"),
    ("FITS image", 0, b"SIMPLE  ="),
    ("Apple icon", 0, b"icns"),
    ("SGI image", 0, b"\x01\xda"),
    ("DICOM file", 128, b"DICM"),
    ("video", 4, b"ftyp"),
    ("video", 0, b"\x1aE\xdf\xa3"),
    ("video", 8, b"AVI "),
    ("audio", 8, b"WAVE"),
    ("audio", 0, b"ID3"),
    ("audio", 0, b"OggS"),
    ("audio", 0, b"fLaC"),
    ("PDF", 0, b"%PDF-"),
    ("PostScript", 0, b"%!PS"),
    ("PostScript", 0, b"\xc5\xd0\xd3\xc6"),
    ("zip archive", 0, b"PK\x03\x04"),
    ("gzip archive", 0, b"\x1f\x8b"),
    ("bzip2 archive", 0, b"BZh"),
    ("xz archive", 0, b"\xfd7zXZ\0"),
    ("Zstandard archive", 0, b"\x28\xb5\x2f\xfd"),
    ("7z archive", 0, b"7z\xbc\xaf\x27\x1c"),
    ("RAR archive", 0, b"Rar!\x1a\x07"),
    ("tar archive", 257, b"ustar"),
    ("NumPy array", 0, b"\x93NUMPY"),
    ("HDF5 file", 0, b"\x89HDF"),
    ("Parquet table", 0, b"PAR1"),
    ("SQLite database", 0, b"SQLite format 3"),
    ("program", 0, b"\x7fELF"),
    ("Git LFS pointer: fetch the file with `git lfs pull`", 0, b"version https://git-lfs"),
    ("PNM image", 0, b"P6\n"),
    ("PNM image", 0, b"P5\n"),
)

# What text says of itself, behind white space and comments.
TEXTS = (
    ("web page", re.compile(r"<(!doctype html|html|head|body)", re.I)),
    ("SVG", re.compile(r"(<\?xml[^>]*>\s*)?(<!doctype svg[^>]*>\s*)?<svg", re.I)),
    ("XML", re.compile(r"<\?xml", re.I)),
    ("JSON", re.compile(r"[\[{]\s*[\"\]}\[{]")),
)
BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
COMMENTS = re.compile(r"(\s|<!--.*?-->)*", re.DOTALL)
ICON = re.compile(rb"\x00\x00[\x01\x02]\x00[^\x00]\x00", re.DOTALL)
PCX = re.compile(rb"\n[\x00\x02-\x05]\x01[\x01\x02\x04\x08]", re.DOTALL)
HEAD = 512  # bytes of a text that are looked at


PICTURES = {name for name, _, _ in SIGNATURES if re.match("camera raw|HEIC|JPEG.|.* (image|document|texture|icon)$|DICOM", name)}
PICTURES |= {"icon", "PCX image", "SVG"}  # sound, and of a kind that is not read


def looks_like(data: bytes) -> str:
    """Return what a file holds by its first bytes: a name of `SIGNATURES` or `TEXTS`, ``text`` or ``unknown data``."""
    for name, offset, magic in SIGNATURES:
        if data[offset : offset + len(magic)] == magic:
            return name
    if not any(data[:HEAD]):
        return "nothing but zeros" if data else "nothing"
    if data[:2] == b"BM":
        return "BMP"
    text = _text(data[:HEAD])
    if text:
        text = text[COMMENTS.match(text).end() :]
        return next((name for name, pattern in TEXTS if pattern.match(text)), "text")
    if ICON.match(data):
        return "icon"
    return "PCX image" if PCX.match(data) else "unknown data"


def _text(head: bytes) -> str:
    """Return the beginning of a file as text; empty where it is none."""
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark)), "utf-8")
    text = head.decode(encoding, errors="ignore")
    lost = len(head) - len(text.encode("utf-8")) if encoding == "utf-8" else 0
    return text if lost <= 3 and all(c.isprintable() or c.isspace() for c in text) else ""
