"""The journal: what survives a kill, what counts as damage, who may write."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kinetext.descriptions.journal import Journal, read_journal

ROWS = [{"record": "answer", "content": "Bäume\n\u2028 \ud83d"}, {"record": "answer", "content": "two"}]


def written(path: Path) -> Path:
    with Journal(path) as journal:
        for row in ROWS:
            journal.append(row)
    return path


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    path = written(tmp_path / "new" / "journal.jsonl")
    assert read_journal(path) == ROWS
    assert path.read_bytes().count(b"\n") == 2
    with Journal(path) as journal:
        assert journal.records == ROWS


def test_no_file_is_an_empty_journal(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "journal.jsonl") == []


def test_a_record_is_on_disk_before_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = (
        "import os, signal, sys; from kinetext.descriptions.journal import Journal; journal = Journal(sys.argv[1]);"
        "journal.__enter__(); journal.append({'record': 'x'}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert read_journal(path) == [{"record": "x"}]
    written(path)  # the lock went with the process


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "journal.jsonl")
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_journal(path) == ROWS[:1]
    with Journal(path) as journal:
        journal.append({"record": "third"})
    assert read_journal(path) == [ROWS[0], {"record": "third"}]


@pytest.mark.parametrize("line", ['{"record": "ans', "[1]", "", "\x00\x00"])
def test_damage_elsewhere_is_an_error_that_names_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    content = f"{json.dumps(ROWS[0])}\n{line}\n{json.dumps(ROWS[1])}\n"
    path.write_text(content)
    for read in (read_journal, lambda path: Journal(path).__enter__()):
        with pytest.raises(ValueError, match=r"journal.jsonl, line 2 is"):
            read(path)
    assert path.read_text() == content


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(ROWS[1])
        with pytest.raises(ValueError, match=r"journal.jsonl is being written by another process; .* another place"):
            Journal(path).__enter__()
        assert read_journal(path) == ROWS[1:]
    written(path)
