from __future__ import annotations

import os

import pytest

from gptoss_bento.config import process_environment
from gptoss_bento.hardware import probe
from gptoss_bento.server.api_workers import find_worker_group
from gptoss_bento.workers import supervisor
from gptoss_bento.workers.worker_group import WorkerGroup
from tests.fakes import H100, Calls, machine


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """This process is BentoML's supervisor on a machine with a fast GPU."""
    calls = Calls()
    monkeypatch.setattr(os, "environ", {"HOME": "/root"})
    monkeypatch.setattr(supervisor, "may_start_several", lambda: True)
    monkeypatch.setattr(supervisor, "create_worker_group", calls)
    monkeypatch.setattr(probe, "probe", lambda _: machine(H100))
    return calls


@pytest.mark.parametrize("profile", [None, "auto", "gpt-oss-20b"])
def test_supervisor_gathers_as_many_workers_as_the_plan_has(gathered: Calls, profile: str | None) -> None:
    assert find_worker_group(profile, None).count == 4
    assert gathered.made == [(4,)]


def test_operators_number_is_used(gathered: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "API_WORKERS", "2")

    assert find_worker_group("demo", None).count == 2
    assert gathered.made == [(2,)]


def test_wrong_setting_is_the_workers_to_refuse(gathered: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "API_WORKERS", "many")

    assert find_worker_group("demo", None).is_alone
    assert gathered.made == [(1,)]


def test_build_probes_no_hardware(gathered: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "may_start_several", lambda: False)
    monkeypatch.setattr(probe, "probe", lambda _: pytest.fail("a build"))

    assert find_worker_group("gpt-oss-20b", None).is_alone
    assert gathered.made == [(1,)]


def test_worker_has_the_index_that_bentoml_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_environment, "worker_count", lambda: 1)

    assert isinstance(group := find_worker_group("demo", 1), WorkerGroup)
    assert group.is_alone


def test_supervisor_leaves_the_hub_to_the_workers(gathered: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "gptoss_bento.artifacts.model_lookup._in_cache", lambda *_: pytest.fail("looked at the hub's cache")
    )
    monkeypatch.setitem(os.environ, "MODEL_NAME", "acme/tuned")

    assert find_worker_group(None, None).count == 4
    assert gathered.made == [(4,)]
