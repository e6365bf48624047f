"""Fixtures of all tests. One engine at a time: the server is started once a session, for the first that needs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.server import ServedProcess, all_processes_end, serve

_INTEGRATION = Path(__file__).parent / "integration"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    """The whole service as a user starts it, on the demo profile; ready to answer. SIGTERM must end it in time."""
    with serve(tmp_path_factory.mktemp("server"), {"PROFILE": "demo"}) as process:
        process.wait_until_ready()
        yield process
        with all_processes_end(process):
            process.terminate()
        assert process.process.returncode == 0


@pytest.fixture(scope="session")
def client(server: ServedProcess) -> Iterator[openai.OpenAI]:
    """OpenAI's own SDK, pointed at the server. No retries: a test sees the first answer."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as sdk:
        yield sdk


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One engine at a time: what may start one runs in one process, and services of their own before the shared one."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        if item.path.parent == _INTEGRATION and item.path.name != "test_job_survival.py":  # that one has a fake engine
            item.add_marker(pytest.mark.xdist_group("engine"))
