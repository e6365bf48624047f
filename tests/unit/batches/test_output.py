"""The files that one attempt of a batch writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptoss_bento.batches.output import BatchOutput, record
from gptoss_bento.state.batch import BatchClaim
from gptoss_bento.strict_json import dumps


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_output_of_the_latest_attempt_is_looked_for_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of many files takes long to read, and the event loop has other requests."""
    for attempt in (1, 2, 10):
        line = dumps(record(f"line {attempt}", error={"code": "x", "message": "x"}))
        (tmp_path / f"batch_1.{attempt}.error").write_text(f"{line}\n")
    glob, threads = Path.glob, set()

    def watched(path: Path, pattern: str) -> Iterator[Path]:
        threads.add(threading.current_thread())
        return glob(path, pattern)

    monkeypatch.setattr(Path, "glob", watched)
    output = BatchOutput(tmp_path, BatchClaim("batch_1", 11))
    await output.open()
    output.release()

    assert (output.failed, "line 10" in output.done) == (1, True)
    assert threads
    assert threading.main_thread() not in threads
    assert names_in(tmp_path) == ["batch_1.11.error", "batch_1.11.output"]
