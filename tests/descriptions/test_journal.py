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


@pytest.mark.parametrize("cut", [2, 5, 20])
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "journal.jsonl")
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_journal(path) == ROWS[:1]
    with Journal(path) as journal:
        journal.append({"record": "third"})
    assert read_journal(path) == [ROWS[0], {"record": "third"}]


@pytest.mark.parametrize(
    "content",
    ["my notes", '{"a set": ["cut', "{\n}\n", '{"record": "answer"}\nnotes', '{"a": ' + "[" * 99999 + "\n"],
)
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    for read in (read_journal, lambda path: Journal(path).__enter__()):
        with pytest.raises(ValueError, match=r"notes.txt(, line 1 is| ends with)"):
            read(path)
    assert path.read_text() == content


def test_nothing_is_cut_before_a_record_is_written(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.jsonl")
    path.write_bytes(path.read_bytes()[:-2])
    before = path.read_bytes()
    with Journal(path) as journal:
        assert journal.records == ROWS[:1]
    assert path.read_bytes() == before


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
        (tmp_path / "link.jsonl").symlink_to(path)
        with pytest.raises(ValueError, match="is being written by another process"):
            Journal(tmp_path / "link.jsonl").__enter__()
        assert read_journal(path) == ROWS[1:]
    written(path)


def test_a_last_line_without_its_line_break_is_kept_if_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"record": "answer", "key": "a"}\n{"record": "answer", "key": "b"}', "utf-8")
    with Journal(path) as journal:
        assert [record["key"] for record in journal.records] == ["a", "b"]
        journal.append({"record": "answer", "key": "c"})
    assert [record["key"] for record in read_journal(path)] == ["a", "b", "c"]


def test_a_run_killed_while_it_wrote_its_first_answer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"record": "answer", "ke', "utf-8")
    with Journal(path) as journal:
        assert journal.records == []
        journal.append({"record": "answer", "key": "a"})
    assert read_journal(path) == [{"record": "answer", "key": "a"}]
