"""Fixtures of all tests. One engine at a time: the server is started once a session, for the first that needs it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import openai
import pytest
from hypothesis import HealthCheck, settings

from tests.server import ServedProcess, all_processes_end, serve
from tests.waiting import HANG_S

# Hypothesis gives an example 200 ms, and complains of slow ones: both are the machine's.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def own_log_level(caplog: pytest.LogCaptureFixture) -> None:
    """What vLLM does to the root logger when it builds its application is not for our own."""
    caplog.set_level(logging.INFO, "gptoss_bento")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    """The whole service as a user starts it, on the demo profile; ready to answer. SIGTERM must end it."""
    with serve(tmp_path_factory.mktemp("server"), {"PROFILE": "demo"}) as process:
        process.wait_until_ready()
        yield process
        with all_processes_end(process):
            process.terminate()
        assert process.process.returncode == 0


@pytest.fixture(scope="session")
def client(server: ServedProcess) -> Iterator[openai.OpenAI]:
    """OpenAI's own SDK, pointed at the server. No retries: a test sees the first answer."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=HANG_S) as sdk:
        yield sdk


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One engine at a time: tests that start a separate service run before the shared server is started."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
