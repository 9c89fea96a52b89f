"""`nullscope predict` and the stage `index` walk and read alike: both find, refuse and ignore the same in the same words."""

import csv
import os
from collections import Counter

import pyarrow.parquet as pq
import pytest
from archives.test_reading import pack
from conftest import noise_image
from images.bad_images import bad_files, photo, save, write_files

from nullscope.prediction import expand
from nullscope.sources.dataset import DatasetParams
from nullscope.sources.index import build_index
from nullscope.verdicts import Verdict

BESIDE = "unpacked_beside_the_archive"
LIMIT = 10**6
MIN_PX = 8  # of a side; the detector's least, too


def odd_tree(root):
    """A folder as people have them."""
    good = {f"{k}.png": noise_image(k, 0) for k in range(3)}
    names = [
        "new\nline.png",
        "esc\x1b[2J.png",
        "🙂 é.png",
        "-dash.png",
        "a::b.png",
        "n\u0303.png",
        "UPPER.PNG",
        "x" * 250 + ".png",
    ]
    odd = {name: noise_image(10 + k, 0) for k, name in enumerate(names)}
    hidden = {"Thumbs.db": b"x", ".hidden.png": noise_image(30, 0), ".folder/in.png": noise_image(31, 0), "desktop.ini": b"x"}
    bad = {f"bad/{name}": data for name, data in bad_files().items()}
    write_files(
        root,
        {**good, **odd, **hidden, **bad, "deep/er/in.png": noise_image(32, 0), "pack.tar.gz": b"\x1f\x8b", "note.txt": b"hi"},
    )
    inside = {"p.png": noise_image(40, 0), "q.png": b"", "__MACOSX/._p.png": b"x", "../up.png": b"x"}
    pack(root / "some.zip", inside)
    pack(root / "some.tar", inside)
    pack(root / "beside.zip", {"0.png": good["0.png"], "r.png": noise_image(41, 0)})
    (root / "not.zip").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with open(os.fsencode(root) + b"/caf\xe9.png", "wb") as file:
        file.write(noise_image(33, 0))
    os.mkfifo(root / "pipe.png")
    (root / "loop").symlink_to(root)
    (root / "nowhere.png").symlink_to(root / "missing.png")
    (root / "linked").symlink_to(root / "deep")
    with open(root / "film.mov", "wb") as file:
        file.truncate(2 * 10**11)
    return root


@pytest.fixture
def judge(small, tmp_path):
    from test_prediction import saved

    from nullscope.prediction import Judge

    return Judge(saved("clip_lora", small, tmp_path / "model"), "cpu")


def by_predict(judge, folder):
    """Scored files, refusals by file, and the ignored by their reason: paths below the folder."""
    ignored = Counter()
    found = list(expand([str(folder)], ignored))
    verdicts = judge.predict_many([item for item in found if isinstance(item, str)])
    verdicts = [next(verdicts) if isinstance(item, str) else item for item in found]
    below = {os.path.relpath(verdict.source, folder): verdict for verdict in verdicts}
    assert len(below) == len(verdicts) and all(isinstance(verdict, Verdict) for verdict in verdicts)
    scored = {name for name, verdict in below.items() if verdict.refused is None}
    return scored, {name: verdict.refused for name, verdict in below.items() if verdict.refused is not None}, ignored


def by_index(folder, out):
    """The same, as a folder of fakes in a data set."""
    root = folder.parents[2]
    write_files(root, {f"{split}/a/0_real/{k}.png": save(photo(k), "PNG") for split, k in (("train", 91), ("test", 92))})
    write_files(root, {"test/a/1_fake/93.png": save(photo(93), "PNG")})
    params = DatasetParams(name="odd", root=str(root), train=["train/*"], test=["test/*"], train_fraction=0.5, max_pixels=LIMIT)
    counts = build_index(
        params, min_side_px=MIN_PX, index_path=out / "index.parquet", rejects_path=out / "rejects.csv", workers=1
    )
    here = "train/a/1_fake/"
    sources = pq.read_table(out / "index.parquet").column("source").to_pylist()
    scored = {source.removeprefix(here) for source in sources if source.startswith(here)}
    with open(out / "rejects.csv", newline="", encoding="utf-8") as file:
        refused = {row["source"].removeprefix(here): row["reason"] for row in csv.DictReader(file)}
    return scored, refused, {why: sum(folders.values()) for why, folders in counts["ignored"].items()}


def test_both_doors_find_refuse_and_ignore_the_same(judge, tmp_path):
    folder = odd_tree(tmp_path / "root/train/a/1_fake")
    scored, refused, ignored = by_predict(judge, folder)
    indexed, rejected, left_out = by_index(folder, tmp_path)
    assert scored == indexed and len(scored) > 15
    assert refused.keys() == rejected.keys()
    same = {name for name in refused if refused[name] == rejected[name]}
    # In words, too; but for the smallest image, where one says the patch and the other the detector, and the way up to a loop.
    assert refused.keys() - same <= {"bad/strip.png", "loop"}
    assert "a loop of links" in refused["loop"] and "a loop of links" in rejected["loop"]
    assert dict(ignored) == {why: files for why, files in left_out.items() if files} == {"hidden": 6, BESIDE: 1}
    expected = {
        "caf\\xe9.png": "the name is not UTF-8",
        "pipe.png": "not a file but a named pipe",
        "nowhere.png": "nothing there",
        "film.mov": "200000000000 bytes: no image",
        "pack.tar.gz": "an archive without random access",
        "not.zip": "not a zip archive: looks like Git LFS pointer",
        "some.zip::q.png": "empty file (0 bytes)",
        "some.tar::../up.png": "a name that leads out of the archive",
    }
    assert {name: refused[name][: len(words)] for name, words in expected.items()} == expected


def test_what_is_named_by_itself_is_found_as_in_its_folder(judge, tmp_path):
    folder = odd_tree(tmp_path / "tree")
    ignored = Counter()
    long = str(folder / ("y" * 300 + ".png"))
    asked = [str(folder / name) for name in ("some.zip", "some.zip::p.png", "0.png", "pipe.png", "caf\udce9.png", "pack.tar.gz")]
    named = str(folder / "nowhere.png")
    found = list(expand([*asked, long, "a\0b", named], ignored))
    said = {os.path.basename(item.source): item.refused for item in found if isinstance(item, Verdict)}
    assert said.keys() == {"caf\\xe9.png", "pack.tar.gz", "up.png", os.path.basename(long)}
    assert said[os.path.basename(long)] == "file name too long"
    files = [item for item in found if isinstance(item, str)]
    members = [str(folder / f"some.zip::{name}") for name in ("p.png", "q.png")]
    assert files == [*members, members[0], *(str(folder / name) for name in ("0.png", "pipe.png")), "a\0b", named]
    verdicts = list(judge.predict_many(files))
    assert verdicts[0].logit == verdicts[2].logit == judge.predict(noise_image(40, 0)).logit
    assert [verdict.refused for verdict in verdicts[4:]] == [
        "not a file but a named pipe, a socket or a device",
        "embedded null byte",
        "nothing there (a missing file, or a link to one)",
    ]


@pytest.mark.skipif(not os.path.exists("/usr/bin/setpriv"), reason="no setpriv")
def test_what_may_not_be_read_is_refused_and_not_skipped(tmp_path):
    """Run as every user but root: a folder and a file without permission."""
    import subprocess
    import sys

    write_files(tmp_path / "t", {"a.png": noise_image(0, 0), "locked.png": noise_image(1, 0), "shut/b.png": noise_image(2, 0)})
    for path in (tmp_path, tmp_path / "t"):
        path.chmod(0o755)
    (tmp_path / "t/locked.png").chmod(0)
    (tmp_path / "t/shut").chmod(0)
    script = (
        "import sys; from collections import Counter; from nullscope.sources.folders import everything\n"
        "from nullscope.archives.reading import read_source; from nullscope.archives.members import refusal\n"
        "from pathlib import Path\n"
        "for item in everything(Path('.')):\n"
        "    try: read_source(Path(item.source), max_pixels=9); print(item.source, 'read')\n"
        "    except OSError as error: print(item.source, getattr(item, 'reason', None) or refusal(error))\n"
    )
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "t")
    if os.geteuid() == 0 and "locked.png read" in done.stdout:
        pytest.skip("this system lets root read all")
    assert done.stdout.splitlines() == ["a.png read", "locked.png no permission to read it", "shut no permission to read it"], (
        done.stderr
    )
