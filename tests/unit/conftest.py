from __future__ import annotations

import os
import sys

import pytest
from rich.console import Console

from gptoss_bento import cli, cli_bench, cli_bench_parts, cli_planning, hardware
from tests.fakes import machine


@pytest.fixture
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, no variables, no hub, a wide terminal; Typer's own exception hook does not outlive the test."""
    monkeypatch.setattr(hardware, "probe", lambda _: machine())
    monkeypatch.setattr(cli_planning, "PLAN_LIMIT_S", 0.0)
    monkeypatch.setattr(os, "environ", {"HOME": "/root"})
    for module in (cli, cli_bench, cli_bench_parts):
        monkeypatch.setattr(module, "console", Console(width=200))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
