from __future__ import annotations

import os

import pytest

from gptoss_bento import app, environment, hardware, supervision
from gptoss_bento.team import Team
from tests.fakes import H100, Calls, machine


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """This process is BentoML's supervisor on a machine with a fast GPU."""
    calls = Calls()
    monkeypatch.setattr(os, "environ", {"HOME": "/root"})
    monkeypatch.setattr(supervision, "may_start_several", lambda: True)
    monkeypatch.setattr(supervision, "gather_team", calls)
    monkeypatch.setattr(hardware, "probe", lambda _: machine(H100))
    return calls


@pytest.mark.parametrize("profile", [None, "auto", "gpt-oss-20b"])
def test_the_supervisor_gathers_as_many_workers_as_the_plan_has(gathered: Calls, profile: str | None) -> None:
    assert app.find_team(profile, None).count == 4
    assert gathered.made == [(4,)]


def test_the_operators_number_is_used(gathered: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "API_WORKERS", "2")

    assert app.find_team("demo", None).count == 2
    assert gathered.made == [(2,)]


def test_a_wrong_setting_is_the_workers_to_refuse(gathered: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "API_WORKERS", "many")

    assert app.find_team("demo", None).is_alone
    assert gathered.made == [(1,)]


def test_a_build_looks_at_no_hardware(gathered: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "may_start_several", lambda: False)
    monkeypatch.setattr(hardware, "probe", lambda _: pytest.fail("a build"))

    assert app.find_team("gpt-oss-20b", None).is_alone
    assert gathered.made == [(1,)]


def test_a_worker_has_the_place_that_bentoml_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "team_size", lambda: 1)

    assert isinstance(team := app.find_team("demo", 1), Team)
    assert team.is_alone
