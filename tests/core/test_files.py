"""Whole file or none: what a reader finds after an error, a full disk or a kill at any system call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trees import tree_sha256

from nullscope.core.files import replacing, replacing_directory, sha256, write_json


def names(folder: Path) -> set[str]:
    """Everything in a folder, hidden files included."""
    return {entry.name for entry in folder.iterdir()}


def tree(folder: Path) -> dict[str, str]:
    """The text of all files under a folder by their relative names."""
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*") if file.is_file()}


# One file


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    """Not before the end of the block, under missing parents too, and nothing is left beside it."""
    path = tmp_path / "deep" / "er" / "a.txt"
    with replacing(path) as partial:
        partial.write_text("new")
        assert not path.exists()
        assert partial.parent == path.parent, "a rename is atomic within one folder only"
    assert path.read_text() == "new"
    assert names(path.parent) == {"a.txt"}


def test_a_file_replaces_the_old_one_at_the_end(tmp_path: Path) -> None:
    """Readers see the old content up to the rename."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", ["old", None])
def test_an_error_leaves_the_old_file_or_none(tmp_path: Path, error: type[BaseException], old: str | None) -> None:
    """An interrupt from the keyboard is an error like any other; the partial file goes."""
    path = tmp_path / "a.txt"
    if old:
        path.write_text(old)
    with pytest.raises(error), replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert (path.read_text() if path.exists() else None) == old
    assert names(tmp_path) == ({"a.txt"} if old else set())


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    """Forgetting to write must not pass for writing."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_hard_links_to_the_old_file_keep_the_old_content(tmp_path: Path) -> None:
    """DVC may link outputs to its cache: writing through the link would corrupt the cache."""
    path, cached = tmp_path / "a.txt", tmp_path / "cache"
    path.write_text("old")
    os.link(path, cached)
    with replacing(path) as partial:
        partial.write_text("new")
    assert (path.read_text(), cached.read_text()) == ("new", "old")


def test_a_symbolic_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    """The other kind of link of DVC's cache."""
    path, cached = tmp_path / "a.txt", tmp_path / "cache"
    cached.write_text("old")
    path.symlink_to(cached)
    with replacing(path) as partial:
        partial.write_text("new")
    assert (path.read_text(), cached.read_text(), path.is_symlink()) == ("new", "old", False)


def test_two_processes_that_write_one_file_leave_one_of_the_two(tmp_path: Path) -> None:
    """Each has a partial file of its own: no content of one inside the other's."""
    path = tmp_path / "a.txt"
    code = "import sys, time, pathlib\nfrom nullscope.core.files import replacing\n" + (
        "with replacing(pathlib.Path(sys.argv[1])) as partial, open(partial, 'w') as file:\n"
        "    for _ in range(200): file.write(sys.argv[2]); file.flush(); time.sleep(0.0005)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), letter]) for letter in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert path.read_text() in ("a" * 200, "b" * 200)
    assert names(tmp_path) == {"a.txt"}


# A folder


def test_a_folder_appears_whole_and_alone(tmp_path: Path) -> None:
    """It starts empty, and takes its place at the end."""
    path = tmp_path / "deep" / "out"
    with replacing_directory(path) as partial:
        assert list(partial.iterdir()) == []
        (partial / "sub").mkdir()
        (partial / "sub" / "a").write_text("1")
        assert not path.exists()
    assert tree(path) == {"sub/a": "1"}
    assert names(path.parent) == {"out"}


def test_a_folder_replaces_all_of_the_old_one(tmp_path: Path) -> None:
    """No file of the old one stays."""
    path = tmp_path / "out"
    path.mkdir()
    (path / "stale").write_text("old")
    with replacing_directory(path) as partial:
        (partial / "fresh").write_text("new")
        assert tree(path) == {"stale": "old"}
    assert tree(path) == {"fresh": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_folder_or_none(tmp_path: Path, error: type[BaseException]) -> None:
    """With all its files."""
    path = tmp_path / "out"
    with pytest.raises(error), replacing_directory(path) as partial:
        (partial / "half").write_text("1")
        raise error
    assert names(tmp_path) == set()
    path.mkdir()
    (path / "a").write_text("old")
    with pytest.raises(error), replacing_directory(path) as partial:
        (partial / "half").write_text("1")
        raise error
    assert names(tmp_path) == {"out"}
    assert tree(path) == {"a": "old"}


def test_a_folder_that_a_killed_process_left_half_made_is_not_taken_over(tmp_path: Path) -> None:
    """The next run starts from an empty one."""
    path = tmp_path / "out"
    with replacing_directory(path) as partial:
        name = partial.name
    (tmp_path / name).mkdir()
    (tmp_path / name / "leftover").write_text("half")
    with replacing_directory(path) as partial:
        (partial / "a").write_text("1")
    assert tree(path) == {"a": "1"}
    assert names(tmp_path) == {"out"}


# A kill at any system call

CRASH = """
import os, signal, sys
from pathlib import Path
from nullscope.core.files import replacing, replacing_directory, write_json

WATCHED = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir", "shutil.rmtree"}
kind, path = sys.argv[1], Path(sys.argv[2])


def act():
    if kind == "directory":
        with replacing_directory(path) as partial:
            for name in "abc":
                (partial / name).write_text("new")
    else:
        with replacing(path) as partial, open(partial, "w") as file:
            for _ in range(3):
                file.write("new")
                file.flush()
                os.stat(partial)
                open(os.devnull).close()


def run(fatal):
    # Fork: the child kills itself at the fatal-th system call that touches files.
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    seen = 0

    def watch(event, _):
        nonlocal seen
        if event in WATCHED:
            seen += 1
            if seen == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    act()
    os._exit(0)


def state():
    if not path.exists():
        return "none"
    return "|".join(sorted(f.name + "=" + f.read_text() for f in path.iterdir())) if path.is_dir() else path.read_text()


def reset():
    import shutil
    for entry in path.parent.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if sys.argv[3] == "old":
        if kind == "directory":
            path.mkdir()
            for name in "abcd":
                (path / name).write_text("old")
        else:
            path.write_text("oldoldold")


fatal = 1
while True:
    reset()
    status = run(fatal)
    print(state())
    if not status:
        break
    act()  # the next run, over whatever the killed one left behind
    assert set(os.listdir(path.parent)) - {path.name} == set() or kind == "file", os.listdir(path.parent)
    fatal += 1
"""


def states_after_kills(kind: str, folder: Path, *, old: bool) -> list[str]:
    """What stands at the path after a kill -9 at the first, second, ... file operation, and last after none."""
    command = [sys.executable, "-c", CRASH, kind, str(folder / "out"), "old" if old else "none"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_a_kill_at_any_file_operation_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """Never a half one. The old file never vanishes either."""
    states = states_after_kills("file", tmp_path, old=True)
    assert len(states) > 3, "the kills did not happen"
    assert set(states[:-1]) <= {"oldoldold", "newnewnew"}
    assert states[-1] == "newnewnew"
    fresh = states_after_kills("file", tmp_path, old=False)
    assert set(fresh[:-1]) <= {"none", "newnewnew"}
    assert fresh[-1] == "newnewnew"


def test_a_kill_at_any_file_operation_leaves_the_old_folder_the_new_one_or_none(tmp_path: Path) -> None:
    """A folder cannot be exchanged in one step, so none is allowed; the old one with some of its files gone is not."""
    old, new = "a=old|b=old|c=old|d=old", "a=new|b=new|c=new"
    states = states_after_kills("directory", tmp_path, old=True)
    assert len(states) > 6, "the kills did not happen"
    assert set(states[:-1]) <= {old, new, "none"}
    assert states[-1] == new
    assert set(states_after_kills("directory", tmp_path, old=False)) <= {"none", new}


def test_a_later_run_clears_what_a_killed_one_left_behind(tmp_path: Path) -> None:
    """A killed writer cannot clean up. Its partial file, which may be as large as the whole, must not stay for ever."""
    path = tmp_path / "a.tar"
    code = (
        "import os, sys, pathlib\nfrom nullscope.core.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert not path.exists()
    with replacing(path) as partial:
        partial.write_text("whole")
    assert names(tmp_path) == {"a.tar"}


# A full disk


def test_a_full_disk_leaves_the_old_file_and_no_partial_one(tmp_path: Path) -> None:
    """The kernel refuses to write (a limit on file sizes stands for the full disk): an error, and everything as before."""
    path = tmp_path / "a.json"
    write_json(path, "old")
    code = (
        "import resource, sys, pathlib\nfrom nullscope.core.files import write_json\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_json(pathlib.Path(sys.argv[1]), 'x' * 100_000)\n"
        "except OSError as error: print(error.errno)\n"
    )
    found = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    assert found.stdout.strip().isdigit(), "the write must fail with an error of the operating system"
    assert json.loads(path.read_text()) == "old"
    assert names(tmp_path) == {"a.json"}


# JSON


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, -float("inf")], {"a": {"b": float("nan")}}])
def test_json_refuses_what_json_cannot_say(tmp_path: Path, value: object) -> None:
    """NaN and infinity: an error, the old file stays."""
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, value)
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == {"a.json"}


@pytest.mark.parametrize("value", [object(), {1, 2}, {"a": Path()}])
def test_json_refuses_other_objects_and_keeps_the_old_file(tmp_path: Path, value: object) -> None:
    """A set has no order, so it has no bytes."""
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, value)
    assert json.loads(path.read_text()) == {"a": 1}


def test_json_of_equal_values_is_equal_bytes_and_reads_back(tmp_path: Path) -> None:
    """Whatever the order of insertion; one line feed at the end; names in their own letters."""
    first, second = {"b": [1, 0.1, None], "a": "Größe"}, {"a": "Größe", "b": [1, 0.1, None]}
    write_json(tmp_path / "1", first)
    write_json(tmp_path / "2", second)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert json.loads((tmp_path / "1").read_text(encoding="utf-8")) == first
    text = (tmp_path / "1").read_text(encoding="utf-8")
    assert "Größe" in text
    assert text.endswith("}\n")


# Hashes


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    """The published example."""
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def make_tree(folder: Path, files: dict[str, str]) -> Path:
    """A folder with these files, created in this order."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_folders_hash_depends_on_names_and_contents_only(tmp_path: Path) -> None:
    """Not on the order of creation, on times, or on where the folder stands."""
    files = {"b": "1", "a/c": "2", "a/b": "", "a-": "3"}
    first = make_tree(tmp_path / "x", files)
    second = make_tree(tmp_path / "y", dict(reversed(files.items())))
    os.utime(second / "b", (0, 0))
    assert tree_sha256(first) == tree_sha256(second)


def test_a_folders_hash_does_not_depend_on_the_order_in_which_the_disk_lists_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file system has an order of its own."""
    folder = make_tree(tmp_path / "x", {"b": "1", "a/c": "2", "a/b": "", "a-": "3"})
    before = tree_sha256(folder)
    listed = sorted(folder.rglob("*"), reverse=True)
    monkeypatch.setattr(Path, "rglob", lambda *_: iter(listed))
    assert tree_sha256(folder) == before


@pytest.mark.parametrize(
    "other",
    [
        {"a": "1", "b": "2!"},
        {"a": "1", "c": "2"},
        {"a": "1"},
        {"a": "2", "b": "1"},
        {"a": "1", "b": "2", "c": ""},
        {"a": "1", "d/b": "2"},
    ],
)
def test_a_folders_hash_sees_every_change(tmp_path: Path, other: dict[str, str]) -> None:
    """Another content, name, place, a file less, a file more, contents exchanged."""
    base = make_tree(tmp_path / "x", {"a": "1", "b": "2"})
    assert tree_sha256(base) != tree_sha256(make_tree(tmp_path / "y", other))
