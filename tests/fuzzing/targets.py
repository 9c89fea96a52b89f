"""What is fuzzed: files that are sound, and a reader that answers, refuses as documented, or is at fault.

A reader returns whether it gave an answer. It raises where an answer contradicts itself, and lets through whatever it does not
document.
"""

from __future__ import annotations

import functools
import io
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from images.bad_images import animated, bad_files, good_files, photo, png16, save, turned
from PIL import Image

MAX_PIXELS = 10**6
SIDE = (24, 32)
MUTATED = ("detector.json", "weights.safetensors", "clip/open_clip_config.json")  # of a model folder


@dataclass(frozen=True)
class Target:
    """A kind of file."""

    name: str
    corpus: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], bool]  # the mutant and a folder to work in


def read_image(data: bytes, _: Path) -> bool:
    """By the index's door (`facts`) and by the prediction's (`decode`): the same answer or the same refusal."""
    from nullscope.images.decoder import ImageError, decode, facts

    try:
        pixels_HWC = decode(data, max_pixels=MAX_PIXELS)
    except ImageError as error:
        refusal = str(error)
        assert refusal and refusal.isprintable() and len(refusal) < 400, refusal
        try:
            facts(data, max_pixels=MAX_PIXELS)
        except ImageError as again:
            assert str(again) == refusal, (refusal, str(again))
            return False
        raise AssertionError(f"only one door refuses it: {refusal}") from None
    found = facts(data, max_pixels=MAX_PIXELS)
    assert pixels_HWC.dtype == np.uint8 and pixels_HWC.shape == (found.height, found.width, 3)
    assert pixels_HWC.shape[0] * pixels_HWC.shape[1] <= MAX_PIXELS
    return True


def jpegs() -> list[bytes]:
    """Baseline and progressive, all samplings, grey and CMYK, with EXIF."""
    options = [{"subsampling": sampling, "progressive": way} for sampling in (0, 1, 2) for way in (False, True)]
    plain = [save(photo(1, SIDE), "JPEG", quality=80, **option) for option in options]
    others = [save(Image.fromarray(photo(2, SIDE)).convert(mode), "JPEG", exif=turned(6)) for mode in ("L", "CMYK", "RGB")]
    return plain + others + [save(photo(3, SIDE), "JPEG", restart_marker_blocks=1)]


def pngs() -> list[bytes]:
    """All modes, 16 bits, a palette with transparency, text."""
    modes = [save(Image.fromarray(photo(4, SIDE)).convert(mode), "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1")]
    palette = save(Image.fromarray(photo(5, SIDE)).quantize(16), "PNG", transparency=0)
    deep = [png16(photo(6, SIDE)[:, :, :bands].astype(np.uint16) * 257) for bands in (1, 3)]
    return [*modes, palette, *deep, animated("PNG")]


def tiffs() -> list[bytes]:
    """Modes and compressions."""
    modes = [save(Image.fromarray(photo(7, SIDE)).convert(mode), "TIFF") for mode in ("RGB", "RGBA", "L", "1", "CMYK", "P")]
    packed = [save(photo(8, SIDE), "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")]
    return [*modes, *packed, save(photo(9, SIDE)[:, :, 0].astype(np.uint16) * 257, "TIFF"), animated("TIFF")]


def simple(format: str) -> Callable[[], list[bytes]]:
    """Of one format: colour, grey, with alpha, animated."""

    def corpus() -> list[bytes]:
        image = Image.fromarray(photo(10, SIDE))
        files = [save(image.convert(mode), format) for mode in ("RGB", "L", "RGBA")]
        return [*files, animated(format)] if format != "BMP" else files

    return corpus


@functools.cache
def members() -> dict[str, bytes]:
    """What the archives hold, by name."""
    return {f"train/sdxl/1_fake/{number}.png": save(photo(number, SIDE), "PNG") for number in range(5)}


def zips() -> list[bytes]:
    """Every method that the standard library writes."""
    files = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, data in members().items():
                archive.writestr(name, data)
        files.append(buffer.getvalue())
    return files


def tars() -> list[bytes]:
    """In the three formats; one with a folder and a link."""
    files = []
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
            for name, data in members().items():
                info = tarfile.TarInfo("x" * 90 * (format != tarfile.USTAR_FORMAT) + name)
                info.size, info.mtime = len(data), 1.5 if format == tarfile.PAX_FORMAT else 1
                archive.addfile(info, io.BytesIO(data))
        files.append(buffer.getvalue())
    return files


def read_archive(suffix: str) -> Callable[[bytes, Path], bool]:
    """List it and read every member, each of which may be refused for itself."""

    def read(data: bytes, folder: Path) -> bool:
        from nullscope.archives.members import refusal
        from nullscope.archives.reading import faults, members, read_source

        path = folder / f"{len(list(folder.iterdir()))}{suffix}"  # archives stay open, so each has a name of its own
        path.write_bytes(data)
        try:
            listed = members(path)
        except OSError as error:
            assert refusal(error)
            return False
        for fault in faults(path):
            assert fault.reason
        for name, member in listed.items():
            try:
                assert len(read_source(Path(f"{path}::{name}"), max_pixels=MAX_PIXELS)) == member.size
            except (OSError, ValueError) as error:
                assert refusal(error)
        return True

    return read


def rows() -> list[dict[str, str]]:
    """Of a manifest."""
    names = [("a.png", "real", "sdxl"), ('b "2".png', "fake", "sdxl"), ("x.zip::c, d.png", "1", "NA"), ("ü\nn.png", "0", "null")]
    return [{"source": source, "label": label, "subset": subset, "prompt": "a, b"} for source, label, subset in names] * 3


def csvs() -> list[bytes]:
    """With line breaks in quotes, of two line ends."""
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows()), buffer)
    return [buffer.getvalue(), b"\xef\xbb\xbf" + buffer.getvalue().replace(b"\n", b"\r\n")]


def parquets() -> list[bytes]:
    """Plain and with a dictionary."""
    files = []
    for dictionary in (True, False):
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows()), buffer, use_dictionary=dictionary)
        files.append(buffer.getvalue())
    return files


def read_manifest(suffix: str) -> Callable[[bytes, Path], bool]:
    """Every row of it, found or refused."""

    def read(data: bytes, folder: Path) -> bool:
        from nullscope.sources.dataset import DatasetError
        from nullscope.sources.folders import Found, Refused
        from nullscope.sources.manifest import read_manifest

        path = folder / f"manifest{suffix}"
        path.write_bytes(data)
        try:
            items = list(read_manifest(path))
        except DatasetError:
            return False
        for item in items:
            assert isinstance(item, Refused) or (isinstance(item, Found) and item.label in (0, 1) and item.source), item
        return True

    return read


def trees() -> list[bytes]:
    """Files of all kinds, which a tree is made of."""
    return [*jpegs(), *pngs(), *zips(), *tars(), *csvs(), *bad_files().values(), *good_files().values()]


def read_tree(data: bytes, folder: Path) -> bool:
    """A data set of nine sound images and the mutant under five names: the sound ones are indexed, the others or a refusal."""
    from nullscope.sources.dataset import DatasetError, DatasetParams
    from nullscope.sources.index import build_index

    root = folder / "tree"
    shutil.rmtree(root, ignore_errors=True)
    for number, label in enumerate(["0_real", "1_fake"] * 4):
        path = root / ("train", "test")[number // 2 % 2] / "sdxl" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(save(photo(50 + number, SIDE), "PNG"))
    for suffix in (".jpg", ".png", ".zip", ".tar", ""):
        (root / f"train/sdxl/1_fake/mutant{suffix}").write_bytes(data)
    params = DatasetParams(
        name="fuzz", root=str(root), train=["train/*"], test=["test/*"], train_fraction=0.5, max_pixels=MAX_PIXELS
    )
    out = {"index_path": folder / "index.parquet", "rejects_path": folder / "rejects.csv"}
    try:
        build_index(params, min_side_px=8, workers=1, **out)
    except DatasetError:
        return False
    found = set(pq.read_table(out["index_path"]).column("source").to_pylist())
    refused = set(pyarrow.csv.read_csv(out["rejects_path"]).column("source").to_pylist())
    for number in range(8):
        assert any(source.endswith(f"/{number}.png") for source in found), f"{number}.png is gone"
    for suffix in (".jpg", ".png", ".zip", ".tar", ""):
        name = f"train/sdxl/1_fake/mutant{suffix}"
        assert any(source == name or source.startswith(f"{name}::") for source in found | refused), f"{name} is gone"
    return True


@functools.cache
def model() -> dict[str, bytes]:
    """The files of a model folder by their names: adapters on a CLIP of two blocks, with weights as training might leave them."""
    import torch  # seconds, which the other targets do without
    from conftest import PATCHES, conf_of, save_model, write_clip

    from nullscope import detectors
    from nullscope.detectors.base import Context

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
        context = Context({"clip": write_clip(folder / "clip", vision, width=24)}, PATCHES)
        params = conf_of("clip_lora")
        detector = detectors.build("clip_lora", params, context, seed=0)
        with torch.no_grad():
            for parameter in detector.trainable():
                parameter.normal_(std=0.05)
        save_model(folder / "model", detector, "clip_lora", params, context)
        files = [file for file in (folder / "model").rglob("*") if file.is_file()]
        return {file.relative_to(folder / "model").as_posix(): file.read_bytes() for file in files}


def model_files() -> list[bytes]:
    """What is read of a model folder before its hashes are compared, and one file whose hash is."""
    return [model()[name] for name in MUTATED]


def read_model(data: bytes, folder: Path) -> bool:
    """The mutant in place of each file of a model folder: a detector whose logits are numbers, or a `ValueError` of one line."""
    from nullscope.prediction import Judge

    root, answers = folder / "model", 0
    for mutated in MUTATED:
        shutil.rmtree(root, ignore_errors=True)
        for name, content in model().items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data if name == mutated else content)
        try:
            verdict = Judge(root, "cpu").predict(photo(60, (64, 64)))
        except ValueError as error:
            assert str(error).isprintable() and len(str(error)) < 2000, str(error)
            continue
        assert verdict.refused or np.isfinite(verdict.logit), f"{mutated}: {verdict}"
        answers += 1
    return answers > 0


TARGETS = {
    target.name: target
    for target in (
        Target("jpeg", jpegs, read_image),
        Target("png", pngs, read_image),
        Target("tiff", tiffs, read_image),
        Target("gif", simple("GIF"), read_image),
        Target("bmp", simple("BMP"), read_image),
        Target("webp", simple("WEBP"), read_image),
        Target("avif", simple("AVIF"), read_image),
        Target("zip", zips, read_archive(".zip")),
        Target("tar", tars, read_archive(".tar")),
        Target("csv", csvs, read_manifest(".csv")),
        Target("parquet", parquets, read_manifest(".parquet")),
        Target("tree", trees, read_tree),
        Target("model", model_files, read_model),
    )
}
