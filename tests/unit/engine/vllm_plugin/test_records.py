from __future__ import annotations

from pathlib import Path

from gptoss_bento.engine.vllm_plugin import records


def test_lines_are_read_as_they_were_appended(tmp_path: Path) -> None:
    said = [{"part": "torch.compile", "seconds": 1.5}, {"part": "é\n", "seconds": 2}]
    for each in said:
        records.append(tmp_path / "record", each)

    assert list(records.parsed((tmp_path / "record").read_bytes())) == said


def test_record_that_cannot_be_written_is_lost_in_silence(tmp_path: Path) -> None:
    records.append(tmp_path / "missing" / "record", {"seconds": 1})

    assert list(tmp_path.iterdir()) == []


def test_line_that_is_no_json_is_left_out() -> None:
    assert list(records.parsed(b'{"a": 1}\n{"a": {"b": 2}\n\xff\n{"a": 3}\n')) == [{"a": 1}, {"a": 3}]
