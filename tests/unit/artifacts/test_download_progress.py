from __future__ import annotations

import logging
from pathlib import Path

import huggingface_hub
import pytest

from gptoss_bento.artifacts import download_progress as progress
from tests.hub import MODEL, Hub, serving

FILES = {"config.json": b"{}", "model.safetensors": bytes(3_000_000)}


@pytest.fixture(autouse=True)
def every_step_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_INTERVAL_S", 0.0)


def test_progress_of_all_files_together_is_reported_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reports: list[str] = []

    with serving(Hub(FILES)) as hub, caplog.at_level(logging.INFO):
        bars = progress.download_progress(MODEL, reports.append)
        huggingface_hub.snapshot_download(MODEL, endpoint=hub.url, cache_dir=tmp_path, token=False, tqdm_class=bars)

    assert reports[-1] == f"{MODEL}: 0.00 GB of 0.00 GB"
    assert f"downloading {MODEL}: 0.00 GB of 0.00 GB" in caplog.text


def test_terminal_gets_the_hubs_own_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)

    assert progress.download_progress("a/b", None) is None
    assert progress.download_progress("a/b", print) is not None
