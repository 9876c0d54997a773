"""Output on terminals and pipes of other encodings than UTF-8, and where it cannot be written."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from sase_ray.cli import app, output
from sase_ray.commands.search import SearchReport
from sase_ray.console import make_console, say
from search_spaces.genotype import PUBLISHED, Genotype

ENCODINGS = ("ascii", "latin-1", "cp1252", "cp437", "shift_jis")


@pytest.fixture
def stdout(monkeypatch):
    """Replace standard output by one of an encoding: ``stdout("ascii")``; returns what it reads."""

    def replace(encoding, errors="strict"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
        monkeypatch.setattr(sys, "stdout", stream)

        def read():
            stream.flush()
            return stream.buffer.getvalue()

        return read

    return replace


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "words",
    [["show", str(PUBLISHED)], ["strategies"], ["spaces"], ["datasets"], ["search", "--help"]],
)
def test_every_command_that_prints_does_so_in_any_encoding(words, encoding, stdout, monkeypatch):
    read = stdout(encoding)
    monkeypatch.setattr(sys, "argv", ["sase-ray", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    assert read().decode(encoding).count("\n") > 5


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_search_ends_with_its_drawing_in_any_encoding(encoding, stdout, tmp_path):
    read = stdout(encoding)
    genotype = Genotype.parse(str(PUBLISHED))
    report = SearchReport(tmp_path / "é世", genotype, [(genotype, -6.5)], "score", outcome=None)
    output.print_search(make_console(), report)
    text = read().decode(encoding)
    assert "[gap_gmp]" in text
    assert "-6.5000" in text


def test_lines_keep_their_places_and_letters_what_they_are(stdout):
    read = stdout("ascii")
    say(make_console(), "├─ [gap] ─┬─◀ 3 – 4 × 2… Zoë, Łukasz, 世界, ﬁ")
    assert read().decode() == "+- [gap] -+-< 3 - 4 * 2. Zoe, ?ukasz, ??, f\n"


def test_a_file_name_that_is_not_utf_8_is_printed_as_its_bytes(stdout):
    for encoding in ("utf-8", "latin-1", "ascii"):
        read = stdout(encoding)
        say(make_console(), f"results in {Path(chr(0xDCE9))}")
        assert read() == b"results in \xe9\n"


def test_what_a_user_chose_for_such_characters_stays(stdout):
    read = stdout("ascii", errors="backslashreplace")
    say(make_console(), "─")
    assert read() == b"\\u2500\n"


def test_output_that_cannot_be_written_is_a_sentence(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "argv", ["sase-ray", "spaces"])
        with pytest.raises(SystemExit) as ended:
            app.main()
        monkeypatch.undo()
        full.close = lambda: None
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: output cannot be written: No space left on device\n"
