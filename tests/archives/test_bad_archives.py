"""Archives as the world sends them: nothing wrong is read, nothing is lost in silence, nothing goes on for ever."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import time
import warnings
import zipfile
from pathlib import Path

import pytest
from archives.test_reading import FILES, opened, pack  # the archives room's other tests

from nullscope.archives import reading
from nullscope.archives.members import REPEATED, ArchiveError
from nullscope.archives.reading import faults, members, parts_of, read_source
from nullscope.sources.folders import Found, Ignored, Refused

BLOCK = 512


def refusals(root: Path) -> dict[str, str]:
    return {item.source: item.reason for item in opened(root) if isinstance(item, Refused)}


def found(root: Path) -> set[str]:
    return {item.source for item in opened(root) if isinstance(item, Found)}


# Tars


def headers(data: bytes) -> list[int]:
    """Where the headers of a tar of small files stand."""
    return [at for at in range(0, len(data), BLOCK) if data[at + 257 : at + 262] == b"ustar"]


def with_checksum(header: bytes) -> bytes:
    """A header with the checksum that it should have."""
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + f"{sum(blank):06o}\0 ".encode() + header[156:]


def test_what_lies_behind_a_bad_header_is_named(tmp_path):
    """`tarfile` takes it for the end, and says nothing of the members behind it."""
    path = pack(tmp_path / "a.tar", FILES)
    data = bytearray(path.read_bytes())
    bad = headers(data)[3]
    data[bad + 150] ^= 1
    path.write_bytes(data)
    with tarfile.open(path) as quiet:
        assert len(quiet.getnames()) == 3
    assert len(found(tmp_path)) == 3
    assert refusals(tmp_path) == {
        "a.tar": f"damaged tar archive: bad checksum at byte {bad}; {len(data) - bad} bytes behind it are not read"
    }


@pytest.mark.parametrize("size", [-1, -512, -(2**40)])
def test_a_negative_size_does_not_go_on_for_ever(tmp_path, size):
    path = pack(tmp_path / "a.tar", FILES)
    data = bytearray(path.read_bytes())
    at = headers(data)[2]
    header = data[at : at + BLOCK]
    header[124:136] = b"\xff" + size.to_bytes(11, "big", signed=True)
    data[at : at + BLOCK] = with_checksum(bytes(header))
    path.write_bytes(data)
    began = time.perf_counter()
    assert len(found(tmp_path)) == 2 and "a negative size" in refusals(tmp_path)["a.tar"]
    assert time.perf_counter() - began < 1


def test_a_tar_that_is_cut_keeps_what_is_there_and_names_the_rest(tmp_path):
    path = pack(tmp_path / "a.tar", FILES)
    at = headers(path.read_bytes())
    os.truncate(path, at[4] + BLOCK + 100)  # within the fifth file
    assert len(found(tmp_path)) == 4
    assert refusals(tmp_path) == {
        "a.tar": "a tar archive without an end: members may be missing",
        "a.tar::1_fake/1.png": "a tar archive that ends too early: 100 of 350 bytes of the member",
    }
    os.truncate(path, at[4])  # between two files
    assert refusals(tmp_path) == {"a.tar": "a tar archive without an end: members may be missing"}


def test_two_tars_in_one_file_are_both_read(tmp_path):
    one = pack(tmp_path / "one.tar", {f"0_real/{k}": b"1" for k in range(3)}).read_bytes()
    other = pack(tmp_path / "other.tar", {f"1_fake/{k}": b"2" for k in range(3)}).read_bytes()
    (tmp_path / "one.tar").unlink()
    (tmp_path / "other.tar").unlink()
    (tmp_path / "both.tar").write_bytes(one + other)
    assert len(found(tmp_path)) == 6 and not refusals(tmp_path)
    with open(tmp_path / "both.tar", "ab") as file:
        file.truncate(2**34)  # a hole of 16 GiB
    began = time.perf_counter()
    assert len(found(tmp_path)) == 6
    assert "bytes behind the end of the tar archive are not read" in refusals(tmp_path)["both.tar"]
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_format_are_read(tmp_path, format):
    """Compared with what `tarfile` lists and extracts."""
    long = "/".join(["0_real", *["é" * 20] * (2 if format == tarfile.USTAR_FORMAT else 6)])
    with tarfile.open(tmp_path / "a.tar", "w", format=format) as archive:
        for name in (f"{long}/1.png", f"{long}/2.png", "./0_real/3.png", "/0_real/4.png"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 700, 1.5 if format == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(name.encode().ljust(700)))
    listed = members(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert {os.path.normpath(info.name) for info in archive} == listed.keys()
        for info in archive:
            name = os.path.normpath(info.name)
            assert read_source(Path(f"{tmp_path}/a.tar::{name}")) == archive.extractfile(info).read()


def test_links_sparse_files_and_devices_are_refused_with_a_reason_and_a_hard_link_is_its_target(tmp_path):
    path = pack(tmp_path / "a.tar", FILES)
    with tarfile.open(path, "a") as archive:
        for name, kind, target in (
            ("0_real/hard.png", tarfile.LNKTYPE, "0_real/1.png"),
            ("0_real/lost.png", tarfile.LNKTYPE, "0_real/nowhere.png"),
            ("0_real/soft.png", tarfile.SYMTYPE, "1.png"),
            ("0_real/pipe.png", tarfile.FIFOTYPE, ""),
            ("0_real/device.png", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    assert read_source(Path(f"{path}::0_real/hard.png")) == FILES["0_real/1.png"]
    reasons = {source.rpartition("/")[2]: reason for source, reason in refusals(tmp_path).items()}
    assert reasons == {
        "lost.png": "a hard link to a file that the archive does not hold",
        "soft.png": "a symbolic link in a tar: unpack the archive",
        "pipe.png": "a named pipe in a tar",
        "device.png": "a device in a tar",
    }


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_members_of_one_name_are_counted_and_the_last_is_read(tmp_path, suffix):
    """As unpacking would leave it; of five members with two names, two are read and three are named."""
    path = tmp_path / f"a.{suffix}"
    contents = [
        ("0_real/x.png", b"1"),
        ("0_real/y.png", b"2"),
        ("0_real/x.png", b"3"),
        ("./0_real/x.png", b"4"),
        ("0_real/y.png", b"5"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's own, about the name
        if suffix == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in contents:
                    archive.writestr(name, data)
        else:
            with tarfile.open(path, "w") as archive:
                for name, data in contents:
                    info = tarfile.TarInfo(name)
                    info.size = 1
                    archive.addfile(info, io.BytesIO(data))
    assert found(tmp_path) == {f"a.{suffix}::0_real/x.png", f"a.{suffix}::0_real/y.png"}
    assert (read_source(Path(f"{path}::0_real/x.png")), read_source(Path(f"{path}::0_real/y.png"))) == (b"4", b"5")
    lost = [item for item in opened(tmp_path) if isinstance(item, Refused)]
    assert [item.reason for item in lost] == [REPEATED] * 3 and len(faults(path)) == 3


# Zips


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_refused_whatever_its_compression(tmp_path, method):
    """LZMAError, OSError and zlib.error come out of `zipfile` as they are."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data * 40)
    data = bytearray(path.read_bytes())
    for place in range(3):  # within the first member
        copy = bytearray(data)
        start = 30 + len("0_real/0.png") + place * 7
        copy[start : start + 5] = b"\xee\x00\xff\x41\x99"
        path.write_bytes(copy)
        reading._ARCHIVES.get(path)
        with pytest.raises(ArchiveError, match="damaged member of a zip archive"):
            read_source(Path(f"{path}::0_real/0.png"))
        assert read_source(Path(f"{path}::0_real/1.png")) == FILES["0_real/1.png"] * 40
        os.utime(path, (place, place))


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (93, "Zstandard"), (98, "PPMd"), (77, "method 77")])
def test_a_method_that_is_not_read_is_named_and_not_called_damaged(tmp_path, method, name):
    path = pack(tmp_path / "a.zip", FILES)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\1\2")
    struct.pack_into("<H", data, directory + 10, method)
    path.write_bytes(data)
    ((source, reason),) = refusals(tmp_path).items()
    assert source == "a.zip::0_real/0.png" and reason.startswith(f"not supported: compressed with {name}")
    assert reason.endswith("unpack the archive") and len(found(tmp_path)) == len(FILES) - 1


def test_a_member_larger_than_any_image_is_refused_before_it_is_unpacked(tmp_path):
    """A zip bomb says its size."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("0_real/bomb.png", "w") as member:
        for _ in range(80):
            member.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(ArchiveError, match=r"no image of dataset\.max_pixels = 1000 takes more than"):
        read_source(Path(f"{path}::0_real/bomb.png"), max_pixels=1000)


def test_a_member_that_is_longer_than_it_says_is_refused(tmp_path):
    path = pack(tmp_path / "a.zip", {"0_real/x.png": bytes(5000)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, 100)
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged member"):
        read_source(Path(f"{path}::0_real/x.png"))


# Names that lie, and archives half unpacked


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip archive; decompress it"),
        (b"BZh91AY&SY", "bzip2 archive; decompress it"),
        (b"\xfd7zXZ\0\0\4", "xz archive; decompress it"),
        (b"\x28\xb5\x2f\xfd\4\0", "Zstandard archive; decompress it"),
        (b"Rar!\x1a\x07\1\0", "RAR archive; decompress it, or unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer: fetch the file with `git lfs pull`"),
        (b"<!DOCTYPE html><html>404", "web page"),
        (b'{"error": 403}', "JSON"),
    ],
)
@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_another_file_under_an_archives_name_is_named(tmp_path, data, kind, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(data + bytes(600) if not data.isascii() else data)
    ((_, reason),) = refusals(tmp_path).items()
    assert reason.startswith(f"not a {suffix} archive: looks like {kind}") and "damaged" not in reason


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_only_what_lies_beside_an_archive_is_left_out(tmp_path, suffix):
    """An interrupted unpacking, and another file of the same name."""
    pack(tmp_path / f"car.{suffix}", {f"car/{name}": data for name, data in FILES.items()})
    (tmp_path / "car/0_real").mkdir(parents=True)
    (tmp_path / "car/0_real/0.png").write_bytes(FILES["0_real/0.png"])
    (tmp_path / "car/0_real/1.png").write_bytes(FILES["0_real/1.png"][:10])  # unpacking stopped here
    listed = found(tmp_path)
    assert {source.partition("::")[2] for source in listed if "::" in source} == {
        f"car/{name}" for name in FILES if name != "0_real/0.png"
    }
    assert {"car/0_real/0.png", "car/0_real/1.png"} <= listed
    assert [item for item in opened(tmp_path) if isinstance(item, Ignored)] == [Ignored(".", 1, "unpacked_beside_the_archive")]


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_an_archive_without_files_is_refused(tmp_path, suffix):
    pack(tmp_path / f"a.{suffix}", {})
    assert refusals(tmp_path) == {f"a.{suffix}": "an archive without files"}


# What is no file, and names


def test_colons_in_folders_above_an_archive_do_not_hide_it(tmp_path):
    path = pack(tmp_path / "run::1/a.zip", FILES)
    assert parts_of(Path(f"{path}::0_real/0.png")) == (path, "0_real/0.png")
    assert read_source(Path(f"{path}::0_real/0.png")) == FILES["0_real/0.png"]
    assert len(found(tmp_path)) == len(FILES)
    (tmp_path / "run::1/plain.png").write_bytes(b"x")
    assert read_source(tmp_path / "run::1/plain.png") == b"x"


def test_pipes_devices_folders_and_giants_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.tar")
    with open(tmp_path / "film.png", "wb") as file:
        file.truncate(200 * 10**9)
    began = time.perf_counter()
    for name in ("pipe.png", "pipe.tar::x", "pipe.zip::x"):
        with pytest.raises(OSError, match=r"named pipe|No such file"):
            read_source(tmp_path / name, max_pixels=10**6)
    with pytest.raises(OSError, match="a device"):
        read_source(Path("/dev/zero"), max_pixels=10**6)
    with pytest.raises(OSError, match="a folder"):
        read_source(tmp_path, max_pixels=10**6)
    with pytest.raises(OSError, match="200000000000 bytes: no image"):
        read_source(tmp_path / "film.png", max_pixels=10**6)
    assert time.perf_counter() - began < 1
