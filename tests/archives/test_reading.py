"""Archives count as unpacked where they lie, and give the bytes of any one member."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images.bad_images import write_files

from nullscope.archives import reading, split_zip
from nullscope.archives.reading import members, read_source
from nullscope.core.contracts import LABEL_FOLDERS
from nullscope.sources.folders import Found, Ignored, Packed, Refused, unpack, walk

FILES = {f"{label}/{k}.png": f"{label}{k}".encode() * 50 for label in ("0_real", "1_fake") for k in range(3)}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """Write a zip or a tar, by the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def opened(root: Path) -> list:
    """Everything below a root, the members of archives among it."""
    items = []
    for item in walk(root):
        items += unpack(root, item) if isinstance(item, Packed) else [item]
    return items


def found(root: Path) -> dict[str, tuple[str, int]]:
    return {item.source: (item.folder, item.label) for item in opened(root) if isinstance(item, Found)}


@pytest.mark.parametrize("suffix", ["zip", "tar"])
@pytest.mark.parametrize(
    ("name", "inside", "folder"),
    [
        ("car", "car/", "train/car"),  # as `unzip` in the folder where it lies
        ("car", "", "train/car"),  # begins with label folders: a folder of its own
        ("all", "car/red/", "train/car/red"),
        ("car", "./car/", "train/car"),
    ],
)
def test_an_archive_counts_as_unpacked_where_it_lies(tmp_path, suffix, name, inside, folder):
    archive = pack(tmp_path / f"train/{name}.{suffix}", {inside + member: data for member, data in FILES.items()})
    listed = found(tmp_path)
    prefix = inside.removeprefix("./")
    assert listed == {
        f"train/{name}.{suffix}::{prefix}{member}": (folder, LABEL_FOLDERS[member.split("/")[0]]) for member in FILES
    }
    for member, data in FILES.items():
        source = Path(f"{archive}::{prefix}{member}")
        assert read_source(source) == data


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_an_archive_in_a_label_folder_is_of_that_label(tmp_path, suffix):
    pack(tmp_path / f"a/1_fake/part.{suffix}", {"x.png": b"1", "deep/y.png": b"2", "0_real/z.png": b"3"})
    assert set(found(tmp_path).values()) == {("a", 1)}
    assert [item.reason for item in opened(tmp_path) if isinstance(item, Refused)] == [
        "a folder 0_real inside a folder of fakes: its files cannot be both"
    ]


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_an_archive_beside_its_unpacked_files_does_not_count_twice(tmp_path, suffix):
    files = {f"car/{member}": data for member, data in FILES.items()}
    write_files(tmp_path, files)
    pack(tmp_path / f"car.{suffix}", files)
    assert found(tmp_path).keys() == files.keys()
    assert [item for item in opened(tmp_path) if isinstance(item, Ignored)] == [Ignored(".", 6, "unpacked_beside_the_archive")]


def test_hidden_members_names_that_lead_out_and_strays_are_not_taken(tmp_path):
    strays = {"__MACOSX/0_real/._0.png": b"", "0_real/.hidden.png": b"", "readme.txt": b"", "../0_real/up.png": b""}
    pack(tmp_path / "a.zip", {**FILES, **strays})
    assert len(found(tmp_path)) == len(FILES)
    rest = [item for item in opened(tmp_path) if not isinstance(item, Found)]
    assert rest == [
        Refused("a.zip::../0_real/up.png", "a name that leads out of the archive"),
        Ignored("a", 2, "hidden"),
        Ignored("a", 1, "outside_label_folders"),
    ]


@pytest.mark.parametrize("name", ["x.tar.gz", "x.TGZ", "x.7z", "x.tar.xz", "x.rar"])
def test_archives_without_random_access_are_refused_with_what_to_do(tmp_path, name):
    write_files(tmp_path, {f"a/{name}": b"whatever"})
    (refused,) = opened(tmp_path)
    assert refused.source == f"a/{name}"
    assert "an archive without random access to its members: " in refused.reason
    assert refused.reason.endswith(("decompress it to a plain .tar", "unpack it"))


@pytest.mark.parametrize("name", ["bad.zip", "bad.tar"])
@pytest.mark.parametrize("data", [b"", b"PK\3\4 cut off", b"no archive at all" * 100])
def test_damaged_archives_are_refused(tmp_path, name, data):
    write_files(tmp_path, {f"a/{name}": data})
    items = opened(tmp_path)
    kind = name[-3:]
    expected = {
        b"": "empty file (0 bytes)",
        b"PK\3\4 cut off": "damaged zip archive: " if kind == "zip" else "not a tar archive: looks like zip archive; decompress",
        b"no archive at all" * 100: f"not a {kind} archive: looks like text",
    }[data]
    (item,) = items
    assert isinstance(item, Refused) and item.reason.startswith(expected)


def test_a_damaged_or_encrypted_member_is_refused_and_the_others_are_read(tmp_path):
    archive = pack(tmp_path / "a.zip", FILES)
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as whole:
        first, second = (whole.getinfo(f"0_real/{k}.png") for k in range(2))
        directory = whole.start_dir
    data[first.header_offset + 30 + len(first.filename) + 5] ^= 0xFF  # within the compressed bytes
    at = data.index(b"PK\1\2", data.index(b"PK\1\2", directory) + 4)
    assert data[at + 46 : at + 46 + len(second.filename)] == second.filename.encode()
    data[at + 8] |= 1  # says: encrypted
    archive.write_bytes(data)
    with pytest.raises(OSError, match="damaged member of a zip archive"):
        read_source(Path(f"{archive}::0_real/0.png"))
    with pytest.raises(OSError, match="encrypted"):
        read_source(Path(f"{archive}::0_real/1.png"))
    assert read_source(Path(f"{archive}::0_real/2.png")) == FILES["0_real/2.png"]
    assert [item.reason for item in opened(tmp_path) if isinstance(item, Refused)] == ["encrypted"]


def test_links_in_a_tar_and_a_tar_cut_short_are_refused(tmp_path):
    path = pack(tmp_path / "a.tar", FILES)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("0_real/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0.png"
        archive.addfile(link)
    assert [item.source for item in opened(tmp_path) if isinstance(item, Refused)] == ["a.tar::0_real/link.png"]
    last = tmp_path / "b.tar"
    pack(last, {"0_real/x.png": b"x" * 2000})
    os.truncate(last, 1000)
    with pytest.raises(OSError, match=r"damaged tar archive|ends too early"):
        read_source(Path(f"{last}::0_real/x.png"))


def test_a_missing_member_or_archive_is_an_error(tmp_path):
    pack(tmp_path / "a.zip", FILES)
    with pytest.raises(OSError, match="nothing of this name"):
        read_source(tmp_path / "a.zip::0_real/absent.png")
    with pytest.raises(FileNotFoundError):
        read_source(tmp_path / "b.zip::0_real/0.png")
    with pytest.raises(FileNotFoundError):
        read_source(tmp_path / "plain.png")


def test_a_replaced_archive_is_read_anew_and_few_stay_open(tmp_path):
    for number in range(reading.OPEN + 3):
        pack(tmp_path / f"{number}.zip", {"x": str(number).encode()})
        assert read_source(tmp_path / f"{number}.zip::x") == str(number).encode()
    assert len(reading._ARCHIVES.open) == reading.OPEN
    pack(tmp_path / "0.zip", {"x": b"another"})
    assert read_source(tmp_path / "0.zip::x") == b"another"


def _read_many(path: str) -> list[bytes]:
    return [read_source(Path(f"{path}::{k}")) for k in range(100)]


def test_processes_that_were_forked_from_one_with_the_archive_open_do_not_disturb_each_other(tmp_path):
    files = {str(k): os.urandom(5000) for k in range(100)}
    path = str(pack(tmp_path / "a.zip", files))
    read_source(Path(f"{path}::0"))  # the parent holds it open
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert all(result == list(files.values()) for result in pool.map(_read_many, [path] * 8))


# Split zips


def split(path: Path, size: int, *, zip64: bool) -> None:
    """Cut a whole zip into parts as APPNOTE.TXT says: places count from the part where they lie, the end names the parts."""
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\5\6")
    total, directory_size, directory = struct.unpack_from("<HLL", data, end + 10)
    at = directory
    for _ in range(total):
        name, extra, comment = struct.unpack_from("<3H", data, at + 28)
        (offset,) = struct.unpack_from("<L", data, at + 42)
        struct.pack_into("<H", data, at + 34, offset // size)
        struct.pack_into("<L", data, at + 42, offset % size)
        at += 46 + name + extra + comment
    tail = bytes(data[end:])
    del data[end:]
    if zip64:
        part, place = divmod(len(data), size)
        data += struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, part, directory // size, total, total, directory_size, directory % size
        )
        data += struct.pack("<4sLQL", b"PK\6\7", part, place, 0)
        locator = len(data)
    data += tail
    last = (len(data) - 1) // size
    struct.pack_into("<2H", data, len(data) - len(tail) + 4, last, directory // size)
    struct.pack_into("<L", data, len(data) - len(tail) + 16, directory % size)
    if zip64:
        struct.pack_into("<L", data, locator - 4, last + 1)
    for number in range(last):
        path.with_suffix(f".z{number + 1:02d}").write_bytes(data[number * size : (number + 1) * size])
    path.write_bytes(data[last * size :])


@settings(deadline=None, max_examples=30)
@given(size=st.integers(200, 4000), zip64=st.booleans(), seed=st.integers(0, 99))
def test_a_zip_in_parts_is_read_as_the_whole_one(tmp_path_factory, size, zip64, seed):
    tmp_path = tmp_path_factory.mktemp("split")
    files = {f"0_real/{k}.png": bytes([seed, k]) * (k * 37) for k in range(12)}
    path = pack(tmp_path / "x.zip", files)
    split(path, size, zip64=zip64)
    if not split_zip.first_part(path).exists():
        return  # one part
    if path.stat().st_size < 22 + (76 if zip64 else 0):
        return  # Info-ZIP never cuts through the records at the end
    assert {name: read_source(Path(f"{path}::{name}")) for name in files} == files
    assert members(path).keys() == files.keys()


@pytest.mark.skipif(not shutil.which("zip"), reason="Info-ZIP is not installed")
@pytest.mark.parametrize("flags", [[], ["-fz"]], ids=["zip", "zip64"])
def test_parts_made_by_info_zip_are_read(tmp_path, flags):
    files = {f"0_real/{k:02d}.png": os.urandom(9000) for k in range(20)}
    write_files(tmp_path / "in", files)
    subprocess.run(["zip", "-q", "-r", *flags, "-s", "64k", "../x.zip", "."], cwd=tmp_path / "in", check=True)
    assert (tmp_path / "x.z02").exists()
    assert {name: read_source(Path(f"{tmp_path}/x.zip::{name}")) for name in files} == files
    (tmp_path / "x.z02").unlink()
    reading._ARCHIVES.open.clear()
    with pytest.raises(OSError, match=r"expected \d parts before it \(x\.z01 and so on\), found 1"):
        members(tmp_path / "x.zip")
