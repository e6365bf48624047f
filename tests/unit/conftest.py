from __future__ import annotations

import os
import sys

import pytest
from rich.console import Console

from gptoss_bento.cli import bench, bench_parts, main, planning
from gptoss_bento.hardware import probe
from tests.fakes import machine
from tests.stores import clock, postgres_url, store, store_url
from tests.vocabulary import vocabulary

__all__ = ["clock", "plain_machine", "postgres_url", "store", "store_url", "vocabulary"]


@pytest.fixture
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, no variables, no hub, a wide terminal; Typer's own exception hook does not outlive the test."""
    monkeypatch.setattr(probe, "probe", lambda _: machine())
    monkeypatch.setattr(planning, "PLAN_LIMIT_S", 0.0)
    monkeypatch.setattr(os, "environ", {"HOME": "/root"})
    for module in (main, bench, bench_parts):
        monkeypatch.setattr(module, "console", Console(width=200))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
