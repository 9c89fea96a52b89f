"""Our reader of tars says of a shard what webdataset's says, and refuses what is none."""

import io
import tarfile

import pytest
from conftest import PATCHES, write_noise_shards
from webdataset.tariterators import tar_file_expander

from nullscope.core.contracts import ContractError
from nullscope.shards.tar_members import members


@pytest.fixture(scope="module")
def tar(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tar")
    write_noise_shards(folder, "images", PATCHES, images=5, per_shard=5)
    return (folder / "train-000000.tar").read_bytes()


def read(content):
    return list(members(io.BytesIO(content), "x.tar"))


def test_members_are_those_of_webdataset(tar):
    expected = list(tar_file_expander([{"url": "x.tar", "stream": io.BytesIO(tar)}]))
    assert read(tar) == expected and len(expected) == 11


def test_contents_of_any_length_are_read_whole():
    buffer = io.BytesIO()
    contents = {f"{size}.bin": bytes(range(256)) * 5 for size in (0, 1, 511, 512, 513)}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = int(name.split(".")[0])
            tar.addfile(info, io.BytesIO(data))
    *found, end = read(buffer.getvalue())
    assert {member["fname"]: member["data"] for member in found} == {
        name: data[: int(name.split(".")[0])] for name, data in contents.items()
    }
    assert end == {}


@pytest.mark.parametrize("length", [0, 100, 512, 600, 1024])
def test_a_tar_that_was_cut_off_is_refused(tar, length):
    with pytest.raises(ContractError, match=r"x\.tar"):
        read(tar[:length])


def test_a_damaged_header_is_refused(tar):
    with pytest.raises(ContractError, match="damaged"):
        read(b"X" + tar[1:])


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_what_is_no_regular_file_is_refused(kind):
    info = tarfile.TarInfo("folder")
    info.type = kind
    with pytest.raises(ContractError, match="regular files"):
        read(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
