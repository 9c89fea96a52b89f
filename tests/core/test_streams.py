"""Standard input, output and error that are closed, full, or of an encoding that holds less than a name."""

import io
import os
import subprocess
import sys

import pytest

from nullscope.core.streams import LOST, holds_everything, lines, printable

SAY = "from nullscope.core.streams import guarded\nwith guarded():\n    "


def program(body, redirect="", **environment):
    """A program under `guarded`, its streams as a shell redirects them: status, standard output, standard error."""
    command = f'exec "{sys.executable}" -c "$BODY" {redirect}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, env={**os.environ, "BODY": SAY + body, **environment})
    return done.returncode, done.stdout, done.stderr.decode()


def test_a_full_disk_loses_results_and_says_so():
    status, _, said = program("print('result')", "> /dev/full")
    assert status == LOST and said == "error: results were lost: no space left on device\n"


def test_a_closed_output_is_said_at_once():
    status, _, said = program("print('result')", ">&-")
    assert status == 1 and said.startswith("error: standard output is closed")


def test_a_closed_error_loses_nothing():
    assert program("import sys; print('warning', file=sys.stderr); print('result')", "2>&-")[:2] == (0, b"result\n")


def test_a_reader_that_has_gone_ends_the_program_in_silence():
    command = f'"{sys.executable}" -c "$BODY" | head -1; echo ${{PIPESTATUS[0]}}'
    body = SAY + "for number in range(200_000): print('line', number)"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "BODY": body})
    assert done.stdout == f"line 0\n{LOST}\n" and done.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_name_that_the_encoding_cannot_hold_is_escaped(encoding):
    status, printed, said = program("print('é', '猫', '\\udce9', 'end')", PYTHONIOENCODING=encoding)
    assert status == 0 and printed.endswith(b"end\n") and b"\\u732b" in printed and said == ""


def test_an_error_of_the_program_is_not_taken_for_one_of_its_streams():
    status, _, said = program("open('/nowhere/at/all')")
    assert status == 1 and "FileNotFoundError" in said
    assert program("raise SystemExit(7)")[0] == 7


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain é 猫 🙂.png", "plain é 猫 🙂.png"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("two\nlines\r", r"two\nlines\r"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),  # which would be shown from right to left
        ("caf\udce9", r"caf\udce9"),
        ("\x00\x7f", r"\x00\x7f"),
    ],
)
def test_what_moves_a_terminals_cursor_is_escaped(name, shown):
    assert printable(name) == shown and printable(shown) == shown


class Input:
    def __init__(self, data):
        self.buffer = io.BytesIO(data)


@pytest.mark.parametrize(
    "data",
    [
        b"a.png\nb c.png\n",
        b"a.png\r\nb c.png\r\n",
        b"\xef\xbb\xbfa.png\nb c.png",
        b"a.png\0b c.png\0",
        "\ufeffa.png\r\nb c.png\r\n".encode("utf-16-le"),
        "\ufeffa.png\nb c.png".encode("utf-16-be"),
        b"\n\na.png\n  \nb c.png\n",
    ],
)
def test_lists_of_names_are_read_as_programs_write_them(data):
    assert list(lines(Input(data))) == ["a.png", "b c.png"]


def test_a_name_that_is_not_utf_8_is_kept_and_one_with_a_line_break_too():
    assert list(lines(Input(b"caf\xe9.png\n"))) == ["caf\udce9.png"]
    assert list(lines(Input(b"two\nlines.png\0b.png\0"))) == ["two\nlines.png", "b.png"]


def test_a_closed_input_is_an_error():
    with pytest.raises(ValueError, match="standard input is closed"):
        list(lines(None))


def test_which_encodings_hold_every_name():
    names = ("utf-8", "UTF8", "utf_16", "ascii", "latin-1")
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=name) for name in names]
    assert [holds_everything(stream) for stream in streams] == [True, True, True, False, False]
