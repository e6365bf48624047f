from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from gptoss_bento.errors import EngineDiedError, EngineStartError
from gptoss_bento.workers import readiness as module
from gptoss_bento.workers.readiness import Readiness, State


class Clock:
    """time.monotonic, moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def startup(clock: Clock) -> Readiness:
    return Readiness(_started=clock(), _phase_started=clock())


def test_new_worker_is_starting(startup: Readiness, clock: Clock) -> None:
    clock.now += 1.234

    assert startup.report() == {"status": "starting", "phase": "imports", "phases": [], "seconds_in_phase": 1.23}


def test_phase_shows_while_it_runs(startup: Readiness, clock: Clock) -> None:
    clock.now += 5

    with startup.timed("artifacts"):
        clock.now += 2
        report = startup.report()

    assert (report["phase"], report["seconds_in_phase"]) == ("artifacts", 2)


def test_finished_phases_show_with_their_times(
    startup: Readiness, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "gptoss_bento"):
        for phase, seconds in [("settings", 0.5), ("hardware", 1.5)]:
            with startup.timed(phase):
                clock.now += seconds

    assert startup.report()["phases"] == [{"phase": "settings", "seconds": 0.5}, {"phase": "hardware", "seconds": 1.5}]
    assert "hardware: done in 1.5 s" in caplog.messages


def test_time_of_a_failed_phase_is_not_kept(startup: Readiness) -> None:

    with pytest.raises(EngineStartError), startup.timed("engine"):
        raise EngineStartError("no")

    assert startup.report()["phases"] == []
    assert startup.phase == "engine"


def test_ready_worker_reports_its_state_and_start_time(
    startup: Readiness, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.now += 40

    with caplog.at_level(logging.INFO, "gptoss_bento"):
        startup.ready()

    assert startup.report() == {"status": "ready", "phase": "ready", "phases": []}
    assert caplog.messages == ["ready after 40.0 s"]


def test_stopping_worker_reports_its_state(startup: Readiness) -> None:
    startup.ready()
    startup.stop()

    assert startup.report() == {"status": "stopping", "phase": "stopping", "phases": []}


def test_failed_worker_names_phase_and_cause(startup: Readiness) -> None:
    with pytest.raises(EngineStartError), startup.timed("engine: application"):
        raise EngineStartError("no")
    startup.fail(EngineStartError("vLLM did not start"))

    assert startup.report() == {
        "status": "failed",
        "phase": "engine: application",
        "phases": [],
        "cause": "vLLM did not start",
    }


def test_failure_log_is_hidden_from_the_probes(startup: Readiness) -> None:
    assert startup.trouble() is None
    startup.fail(EngineDiedError("It died"), "disk full", ["INFO 1", "No space left on device"])

    assert (startup.report()["cause"], startup.report()["cause_kind"]) == ("It died", "disk full")
    assert "log" not in startup.report()
    assert startup.trouble() == {
        "status": "failed",
        "cause": "It died",
        "cause_kind": "disk full",
        "log": ["INFO 1", "No space left on device"],
    }


def test_engine_that_does_not_answer_is_not_ready_until_it_does(
    startup: Readiness, caplog: pytest.LogCaptureFixture
) -> None:
    startup.ready()
    caplog.clear()
    for seconds in (12.0, 12.5):
        startup.stalled(seconds)
    silent = startup.is_ready
    assert not silent
    assert startup.report()["engine_silent_seconds"] == 12.5
    assert startup.trouble() == {"status": "silent", "engine_silent_seconds": 12.5}
    assert caplog.messages == ["the engine has not answered for 12 s"], "said once"

    startup.stalled(None)
    assert startup.is_ready
    assert startup.trouble() is None


def test_failed_worker_that_is_stopped_stays_failed(startup: Readiness) -> None:
    startup.fail(EngineStartError("cause"))
    startup.stop()

    assert startup.state is State.FAILED
    assert startup.report()["cause"] == "cause"


def test_worker_that_is_stopped_while_it_starts_never_gets_ready(
    startup: Readiness, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "gptoss_bento"):
        startup.stop()
        startup.ready()

    assert startup.report() == {"status": "stopping", "phase": "stopping", "phases": []}
    assert caplog.messages == []


def test_failed_worker_never_gets_ready(startup: Readiness) -> None:
    startup.fail(EngineStartError("cause"))
    startup.ready()

    assert startup.report()["status"] == "failed"


def test_service_is_ready_when_its_other_workers_are(startup: Readiness, clock: Clock) -> None:
    others = False
    startup.others_ready = lambda: others
    startup.ready()
    clock.now += 2

    report = startup.report()
    assert (startup.service_state, report["status"]) == (State.STARTING, "starting")
    assert (report["phase"], report["seconds_in_phase"]) == ("waiting for the other API workers", 2)

    others = True
    assert (startup.service_state, startup.report()["phase"]) == (State.READY, "ready")


def test_worker_that_stops_does_not_wait_for_others(startup: Readiness) -> None:
    startup.others_ready = lambda: False
    startup.stop()

    assert startup.service_state is State.STOPPING


def test_phase_may_report_its_progress(startup: Readiness) -> None:
    with startup.timed("artifacts"):
        startup.set_progress("1.00 GB of 2.00 GB")
        assert startup.report()["detail"] == "1.00 GB of 2.00 GB"

    assert "detail" not in startup.report()


def test_phase_shows_what_it_was_made_of(startup: Readiness, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with startup.timed("engine"):
        clock.now += 30

    startup.explain("engine", {"torch.compile": 12.345, "CUDA graphs": 9})

    assert startup.report()["phases"] == [
        {"phase": "engine", "seconds": 30, "parts": {"torch.compile": 12.35, "CUDA graphs": 9}}
    ]
    assert "engine: torch.compile 12.3 s, CUDA graphs 9.0 s" in caplog.messages


def test_phase_of_which_nothing_is_known_has_no_parts(startup: Readiness) -> None:
    with startup.timed("engine"):
        pass

    startup.explain("engine", {})

    assert startup.report()["phases"] == [{"phase": "engine", "seconds": 0}]


def test_seconds_count_from_the_start(startup: Readiness, clock: Clock) -> None:
    clock.now += 7

    assert startup.seconds == 7
