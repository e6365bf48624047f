from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from gptoss_bento.config import process_environment
from gptoss_bento.engine.vllm_plugin import start_times
from gptoss_bento.engine.vllm_plugin.start_times import LINES, Line, Recorder

LINE = Line("%sgraphs took %.2f s", "CUDA graphs", 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "times"


def logger_of(file: Path) -> logging.Logger:
    logger = logging.Logger("of a test", logging.INFO)
    logger.addFilter(Recorder(file, (LINE,)))
    return logger


def test_time_that_vllm_logs_is_kept(file: Path) -> None:
    logger_of(file).info(LINE.text, "[model] ", 12.345)

    assert start_times.read(file) == {"CUDA graphs": 12.345}


def test_time_that_cannot_be_written_does_not_end_a_start(tmp_path: Path) -> None:
    logger_of(tmp_path / "missing" / "times").info(LINE.text, "", 1.0)

    assert list(tmp_path.iterdir()) == []


def test_half_a_line_is_passed_over(file: Path) -> None:
    file.write_text('{"process": 1, "pa')
    logger_of(file).info(LINE.text, "", 1.0)
    logger_of(file).info(LINE.text, "", 2.0)

    assert start_times.read(file) == {"CUDA graphs": 2.0}


def test_times_of_one_process_add_up_in_the_order_of_their_ends(file: Path) -> None:
    logger = logger_of(file)
    recorder = Recorder(file, (Line("compiled in %d s", "torch.compile", 0),))
    logger.addFilter(recorder)

    logger.info("compiled in %d s", 20)
    for seconds in (3.0, 4.0):
        logger.info(LINE.text, "", seconds)

    assert list(start_times.read(file).items()) == [("torch.compile", 20), ("CUDA graphs", 7.0)]


def test_process_that_is_slowest_counts(file: Path) -> None:
    lines = [{"process": process, "part": "p", "seconds": seconds} for process, seconds in ((1, 2), (2, 5), (1, 1))]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert start_times.read(file) == {"p": 5}


@pytest.mark.parametrize("values", [(), ("", "soon")])
def test_line_that_another_vllm_fills_otherwise_is_passed_over(values: tuple[object, ...], file: Path) -> None:
    record = logging.LogRecord("l", logging.INFO, "", 0, LINE.text, values, None)

    assert Recorder(file, (LINE,)).filter(record)
    assert start_times.read(file) == {}


def test_lines_of_other_kinds_pass(file: Path) -> None:
    record = logging.LogRecord("l", logging.INFO, "", 0, "something else", (), None)

    assert Recorder(file, (LINE,)).filter(record)
    assert not file.exists()


def test_recorder_is_off_without_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_times, "start_times_file", lambda: None)
    before = {name: len(logging.getLogger(name).filters) for name in LINES}

    start_times.record()

    assert {name: len(logging.getLogger(name).filters) for name in LINES} == before
    assert start_times.read(None) == {}


def test_service_has_the_loggers_of_vllm_watched(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(start_times, "start_times_file", lambda: file)
    monkeypatch.setattr(start_times, "LINES", {"a.logger.of.this.test": (LINE,)})

    start_times.record()

    (recorder,) = logging.getLogger("a.logger.of.this.test").filters
    assert isinstance(recorder, Recorder)


def test_file_goes_with_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    assert process_environment.start_times_file() is None

    note = process_environment.set_exit_note_path()

    assert process_environment.start_times_file() == note.with_suffix(".times")
    assert process_environment.temporary_kernel_folder() == note.with_suffix(".kernels")
