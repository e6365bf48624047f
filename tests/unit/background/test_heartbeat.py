"""When this worker takes over the work of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gptoss_bento.background.heartbeat import LEASE_MS, Heartbeat
from gptoss_bento.state.worker_identity import WorkerIdentity, own_identity
from gptoss_bento.workers.worker_group import WorkerGroup
from tests.stores import Clock


class OneDeadWorker:
    """A store in which the lease of one other worker has expired."""

    def __init__(self) -> None:
        self.leases: list[str] = []
        self.gone: list[bool] = []

    async def renew_lease(self, worker: WorkerIdentity, /) -> None:
        self.leases.append(worker.worker_id)

    async def release_lease(self, worker_id: str, /) -> None:
        self.leases.remove(worker_id)

    async def recover(self, lease_ms: int, is_gone: Callable[[WorkerIdentity], bool], /) -> list[str]:
        assert lease_ms == LEASE_MS
        self.gone.append(is_gone(replace(own_identity(), started=1.0)))
        return ["a"]


@pytest.fixture
def dead() -> OneDeadWorker:
    return OneDeadWorker()


def heartbeat(store: OneDeadWorker, clock: Clock, group: WorkerGroup | None = None) -> Heartbeat:
    return Heartbeat(store, WorkerIdentity("own", "here", 1, 0.5), clock, group or WorkerGroup())


async def test_heartbeat_takes_over_work_from_the_start(dead: OneDeadWorker, clock: Clock) -> None:
    own = heartbeat(dead, clock)

    assert await own.start() == ["a"]
    assert await own.beat() == ["a"]
    assert dead.leases == ["own", "own"]
    assert dead.gone == [True, True]


async def test_heartbeat_after_an_outage_extends_the_leases_of_others(dead: OneDeadWorker, clock: Clock) -> None:
    own = heartbeat(dead, clock)
    clock.now += LEASE_MS
    assert await own.beat() == []
    clock.now += LEASE_MS // 2
    assert await own.beat() == []
    clock.now += LEASE_MS // 2
    assert await own.beat() == ["a"]


async def test_heartbeat_that_stops_releases_the_lease(dead: OneDeadWorker, clock: Clock) -> None:
    own = heartbeat(dead, clock)
    await own.start()
    await own.stop()
    assert dead.leases == []


async def test_lease_of_a_killed_worker_of_the_same_service_is_left_to_the_next_start(
    dead: OneDeadWorker, clock: Clock
) -> None:
    group = WorkerGroup()
    group.enter(own_identity().pid)
    await heartbeat(dead, clock, group).start()
    assert dead.gone == [False]
