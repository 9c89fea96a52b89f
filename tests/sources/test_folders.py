"""Folders to files: what is found, refused and ignored, and how a folder gets its split and subset."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images.bad_images import write_files

from nullscope.core.config import ParamsError, validate
from nullscope.core.contracts import FAKE, REAL
from nullscope.sources import folders
from nullscope.sources.dataset import DatasetError, DatasetParams
from nullscope.sources.folders import Found, Ignored, Refused, walk
from nullscope.sources.survey import UNMATCHED, survey

VALUES = {"name": "small", "root": "images", "train": ["a"], "test": ["b"], "train_fraction": 0.5, "max_pixels": 10**6}
FOUR = {f"{subset}/{label}/x.png": b"" for subset in "ab" for label in ("0_real", "1_fake")}


def params(root: Path = Path("images"), **changes) -> DatasetParams:
    return validate("dataset", {**VALUES, "root": str(root), **changes}, DatasetParams)


def sources(root: Path, kind: type) -> list[str]:
    return [item.source for item in walk(root) if isinstance(item, kind)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": []}, "train: list should have at least 1 item"),
        ({"train_fraction": 1.0}, "train_fraction: input should be less than 1"),
        ({"max_pixels": 0}, "max_pixels: input should be greater than 0"),
        ({"name": ""}, "name: string should have at least 1 character"),
        ({"test": ["/absolute"]}, "no pattern: expected folder names below the root"),
        ({"test": ["../up"]}, "no pattern"),
        ({"val": ["../up"]}, "no pattern"),
        ({"val_fraction": 1.0}, "val_fraction: input should be less than 1"),
        ({"val": ["c"], "val_fraction": 0.1}, r"val_fraction: .*dataset.val = \['c'\] .* expected one of the two"),
        ({"generator": {}}, "did you mean `generators`"),
    ],
)
def test_wrong_parameters_say_what_is_wrong(changes, words):
    with pytest.raises(ParamsError, match=words):
        params(**changes)


@pytest.mark.parametrize(
    ("pattern", "folder", "subset"),
    [
        ("train/*", "train/car", "car"),
        ("train/*", "train/car/red", "car"),
        ("train/*", "train", None),
        ("train/*", "test/car", None),
        ("progan", "progan/airplane", "progan"),
        ("sd1*", "sd14", "sd14"),
        ("*", "x/y/z", "x"),
        ("*/y", "x/y/z", "y"),
        ("*", ".", "small"),
        ("A", "a", None),
    ],
)
def test_patterns_match_component_by_component(pattern, folder, subset):
    assert params(train=[pattern]).subset("train", folder) == subset


def test_the_first_matching_pattern_names_the_subset():
    assert params(train=["*/y", "x"]).subset("train", "x/y") == "y"
    assert params(train=["x", "*/y"]).subset("train", "x/y") == "x"


@given(image_id=st.text("0123456789abcdef", min_size=64, max_size=64), fraction=st.floats(0.01, 0.99))
def test_a_shared_subset_is_split_by_the_image_alone(image_id, fraction):
    both = params(train=["*"], test=["*"], train_fraction=fraction)
    assert both.split_of("a", image_id) == both.split_of("b/c", image_id)
    if both.split_of("a", image_id) == "train":  # a larger share keeps every training image
        assert params(train=["*"], test=["*"], train_fraction=min(0.995, fraction * 1.5)).split_of("a", image_id) == "train"


@given(image_id=st.text("0123456789abcdef", min_size=64, max_size=64), fraction=st.floats(0.01, 0.6))
def test_validation_images_are_drawn_by_the_image_alone(image_id, fraction):
    """From the training images, in shared folders too: the others stay where they were, a larger share keeps every image."""
    for test, folder in ((["b"], "a"), (["*"], "a/c"), (["*"], "b")):
        without, some = (params(train=["*"], test=test, val_fraction=share) for share in (0.0, fraction))
        more = params(train=["*"], test=test, val_fraction=min(0.9, 1.5 * fraction))
        before, after = without.split_of(folder, image_id), some.split_of(folder, image_id)
        assert after == before or (before, after) == ("train", "val")
        assert some.subset(after, folder) == without.subset(before, folder)
        if after == "val":
            assert more.split_of(folder, image_id) == "val"


def test_the_draws_of_training_and_of_validation_images_are_independent():
    """Of 20,000 images: an image that trains is drawn for validation as often as any other, within four deviations."""
    ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]
    for fraction in (0.3, 0.7):
        drawn = [params(train=["*"], test=["*"], train_fraction=fraction, val_fraction=0.3).split_of("a", one) for one in ids]
        count = Counter(drawn)
        training = count["train"] + count["val"]
        assert abs(training - fraction * len(ids)) < 4 * (fraction * (1 - fraction) * len(ids)) ** 0.5
        assert abs(count["val"] - 0.3 * training) < 4 * (0.21 * training) ** 0.5


def test_folders_of_validation_are_of_no_other_split(tmp_path):
    root = write_files(tmp_path, {**FOUR, "c/0_real/x.png": b"", "c/1_fake/x.png": b""})
    assert params(root, val=["c"]).splits("c") == ["val"]
    survey(params(root, val=["c"]))
    for changes, other in (({"val": ["b", "c"]}, "test"), ({"val": ["a"]}, "train"), ({"val": ["*"], "test": ["b"]}, "train")):
        with pytest.raises(DatasetError, match=rf"dataset.val = .* and dataset.{other} = .* both match the folder .*0.1` takes"):
            survey(params(root, **changes))
    with pytest.raises(DatasetError, match=r"'val/\*' of dataset.val matches no folder .* dataset.val_fraction=0.1` takes"):
        survey(params(root, val=["val/*"]))


def test_generators_are_named_for_fakes_only():
    known = params(generators={"car": "ProGAN"})
    assert [known.generator("car", FAKE), known.generator("sd14", FAKE), known.generator("car", REAL)] == [
        "ProGAN",
        "sd14",
        "real",
    ]


def test_walk_finds_files_under_label_folders_in_the_order_of_their_names(tmp_path):
    names = ["b/1_fake/deep/er/x.png", "b/0_real/noext", "b/0_real/X.JPG", "a/c/0_real/two.dots.png", "0_real/top.png"]
    root = write_files(tmp_path, dict.fromkeys(names, b""))
    assert [item for item in walk(root) if isinstance(item, Found)] == [
        Found("0_real/top.png", ".", REAL),
        Found("a/c/0_real/two.dots.png", "a/c", REAL),
        Found("b/0_real/X.JPG", "b", REAL),
        Found("b/0_real/noext", "b", REAL),
        Found("b/1_fake/deep/er/x.png", "b", FAKE),
    ]


def test_hidden_and_stray_files_are_counted_per_folder(tmp_path):
    names = ["a/0_real/.DS_Store", "a/0_real/Thumbs.db", "a/0_real/.git/config", "a/readme.txt", "a/real/x.png", "a/real/y.png"]
    root = write_files(tmp_path, dict.fromkeys(names, b""))
    os.symlink("readme.txt", root / "a/link.txt")
    counts: dict[tuple[str, str], int] = {}
    for item in walk(root):
        assert isinstance(item, Ignored)
        counts[item.folder, item.why] = counts.get((item.folder, item.why), 0) + item.files
    assert counts == {("a", "hidden"): 3, ("a", "outside_label_folders"): 2, ("a/real", "outside_label_folders"): 2}


def test_links_are_followed_and_loops_and_dangling_ones_refused(tmp_path):
    root = write_files(tmp_path / "images", {"a/0_real/x.png": b""})
    elsewhere = write_files(tmp_path / "elsewhere", {"1_fake/y.png": b"", "1_fake/z.png": b""})
    os.symlink(elsewhere, root / "b")
    os.symlink(elsewhere / "1_fake/y.png", root / "a/0_real/file_link.png")
    os.symlink("..", root / "a/0_real/up")
    os.symlink(root, elsewhere / "back")
    os.symlink("nowhere.png", root / "a/0_real/dangling.png")
    os.symlink("self.png", root / "a/0_real/self.png")
    assert sources(root, Found) == ["a/0_real/file_link.png", "a/0_real/x.png", "b/1_fake/y.png", "b/1_fake/z.png"]
    reasons = {item.source: item.reason for item in walk(root) if isinstance(item, Refused)}
    assert set(reasons) == {"a/0_real/dangling.png", "a/0_real/self.png", "a/0_real/up", "b/back"}
    assert reasons["a/0_real/up"] == "a loop of links: it leads back to the folder a above it"
    assert reasons["b/back"] == "a loop of links: it leads back to the folder . above it"
    assert "nothing there" in reasons["a/0_real/dangling.png"]
    assert "symbolic links" in reasons["a/0_real/self.png"]


def test_pipes_are_refused_without_being_opened(tmp_path):
    root = write_files(tmp_path, {"a/0_real/x.png": b""})
    os.mkfifo(root / "a/0_real/pipe.png")  # opening it would wait for a writer for ever
    assert [(item.source, item.reason) for item in walk(root) if isinstance(item, Refused)] == [
        ("a/0_real/pipe.png", "not a file but a named pipe, a socket or a device")
    ]


def test_names_outside_utf8_are_refused_under_an_escaped_name(tmp_path):
    folder = os.fsencode(write_files(tmp_path, {"a/0_real/caf\u00e9.png": b""}) / "a/0_real")
    for name in (b"caf\xe9.png", b"folder\xff"):
        (os.mkdir if name.startswith(b"folder") else lambda path: open(path, "wb").close())(os.path.join(folder, name))
    assert sources(tmp_path, Found) == ["a/0_real/café.png"]
    assert sources(tmp_path, Refused) == ["a/0_real/caf\\xe9.png", "a/0_real/folder\\xff"]


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    root = write_files(tmp_path, FOUR)
    scandir = os.scandir

    def forbidden(path):  # the tests may run as root, whom no mode keeps out
        if str(path).endswith("b/1_fake"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(folders.os, "scandir", forbidden)
    assert [item for item in walk(root) if isinstance(item, Refused)] == [Refused("b/1_fake", "no permission to read it", None)]


def test_a_label_folder_inside_the_other_is_refused(tmp_path):
    root = write_files(tmp_path, {"a/0_real/1_fake/x.png": b"", "a/0_real/0_real/y.png": b""})
    assert sources(root, Found) == ["a/0_real/0_real/y.png"]
    assert [item.reason for item in walk(root) if isinstance(item, Refused)] == [
        "a folder 1_fake inside a folder of reals: its files cannot be both"
    ]


def test_a_missing_root_says_how_to_point_elsewhere(tmp_path):
    with pytest.raises(DatasetError, match=r"expected a folder of images, found nothing there.*-S dataset\.root="):
        list(walk(tmp_path / "absent"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match="found a file"):
        list(walk(tmp_path / "file"))


def test_survey_counts_what_no_pattern_matches_per_folder(tmp_path):
    root = write_files(tmp_path, {**FOUR, "c/d/0_real/x.png": b"", "c/e/1_fake/x.png": b""})
    os.symlink("nowhere", root / "c/d/0_real/dangling")
    found = survey(params(root))
    assert found.total == 4
    assert found.ignored_because(UNMATCHED) == {"c": 3}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"test": ["b", "typo"]},
            r"pattern 'typo' of dataset\.test matches no folder .*; found a, b\. A pattern names the folder above",
        ),
        ({"test": ["half"]}, r"the split `test` holds fakes and no reals"),
        ({"generators": {"c": "X"}}, r"dataset\.generators names c, which is no subset; found a, b"),
    ],
)
def test_patterns_that_reach_nothing_are_errors(tmp_path, changes, words):
    root = write_files(tmp_path, {**FOUR, **({"half/1_fake/x.png": b""} if changes.get("test") == ["half"] else {})})
    with pytest.raises(DatasetError, match=words):
        survey(params(root, **changes))


def test_other_label_folders_are_named_in_the_error(tmp_path):
    root = write_files(tmp_path, {"train/ai/x.png": b"", "train/nature/y.png": b""})
    with pytest.raises(DatasetError, match=r"found files in train/ai, train/nature\. Say what your label folders are called"):
        survey(params(root, train=["train/*"]))
    assert survey(params(root, train=["train"], test=["train"], labels={"nature": "real", "ai": "fake"})).total == 2


@pytest.mark.parametrize(
    ("pattern", "folder", "subset"),
    [
        ("@*/*/val", "ADM/imagenet_ai_0508_adm/val", "ADM"),
        ("@*/*/val", "ADM/imagenet_ai_0508_adm/train", None),
        ("@sd*/*", "sd14/x/deeper", "sd14"),
        ("a/@*/b", "a/c/b", "c"),
    ],
)
def test_a_marked_component_names_the_subset(pattern, folder, subset):
    assert params(train=[pattern]).subset("train", folder) == subset


def test_other_spellings_of_a_folder_are_one_subset():
    spelt = params(test=["[bB]ig[gG][aA][nN]"], names={"BigGAN": "biggan"})
    assert [spelt.subset("test", name) for name in ("BigGAN", "biggan", "bigger")] == ["biggan", "biggan", None]


def test_what_is_published_is_held_against_what_is_found():
    expected = {"test": {"x": [2, 3], "y": None, "z": None, "w": [1, 1]}, "train": {}}
    found = {"train": {}, "test": {"x": {"real": 2, "fake": 2}, "y": {"real": 1, "fake": 0}}}
    assert params(test=["x", "y", "z"], expected=expected).unexpected(found) == {
        "test": {
            "x": {"real": 2, "fake": 2, "real_published": 2, "fake_published": 3},
            "z": {"real": 0, "fake": 0},  # missing; w is not asked for
        }
    }
    assert params(test=["x"], expected={"test": {"x": [2, 2]}}).unexpected(found) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": ["@a/@b"]}, "marks several components"),
        ({"test": ["a/@"]}, "no pattern"),
        ({"labels": {"nature": "real"}}, "expected folder names for real and for fake"),
        ({"labels": {"nature": "genuine", "ai": "fake"}}, "labels.nature"),
        ({"expected": {"test": {"x": [1]}}}, "expected.test.x"),
        ({"expected": {"tset": {}}}, "expected.tset"),
    ],
)
def test_wrong_layouts_say_what_is_wrong(changes, words):
    with pytest.raises(ParamsError, match=words):
        params(**changes)
