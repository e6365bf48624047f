from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fake_mcp_servers import FakeServers, fake_servers


@pytest.fixture(scope="session")
def fakes() -> Iterator[FakeServers]:
    """The servers of the tests, in one process."""
    with fake_servers() as running:
        yield running
