"""How far the start is: phases with their times, for the log and for the readiness probe."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gptoss_bento.errors import GptOssBentoError

logger = logging.getLogger(__name__)


class State(StrEnum):
    """What the service can do now."""

    STARTING = "starting"  # the port is open, the engine is not there yet
    READY = "ready"  # answering
    STOPPING = "stopping"  # shutting down; refuses new requests
    FAILED = "failed"  # cannot serve; about to exit with a cause


@dataclass
class Readiness:
    """One start of one worker. Written by the start, read by the probes; times are in seconds.

    The service is ready when all its workers are: `others_ready` is asked each time, so that all of them say the same.
    """

    state: State = State.STARTING
    phase: str = "imports"
    detail: str | None = None
    cause: str | None = None
    kind: str | None = None
    log: Sequence[str] = ()
    silent_s: float | None = None  # the engine has not answered for so long
    others_ready: Callable[[], bool] = lambda: True
    _finished: list[tuple[str, float]] = field(default_factory=list)
    _parts: dict[str, Mapping[str, float]] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _phase_started: float = field(default_factory=time.monotonic)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Runs one phase; its time is kept only if it ends well."""
        self.phase, self.detail, self._phase_started = phase, None, time.monotonic()
        yield
        self.detail = None
        seconds = time.monotonic() - self._phase_started
        self._finished.append((phase, seconds))
        logger.info("%s: done in %.1f s", phase, seconds)

    def set_progress(self, detail: str) -> None:
        """The progress of the phase, in a short text."""
        self.detail = detail

    def explain(self, phase: str, parts: Mapping[str, float]) -> None:
        """What a phase that has ended was made of, in seconds; the rest of its time is not accounted for."""
        if parts:
            self._parts[phase] = parts
            logger.info("%s: %s", phase, ", ".join(f"{part} {seconds:.1f} s" for part, seconds in parts.items()))

    @property
    def seconds(self) -> float:
        """Since the start began."""
        return time.monotonic() - self._started

    def ready(self) -> None:
        """The engine answers. Asked to stop meanwhile, it stays stopping."""
        if self.state is not State.STARTING:
            return
        self.state, self.phase = State.READY, "ready"
        self._phase_started = time.monotonic()
        logger.info("ready after %.1f s", self.seconds)

    def stalled(self, silent_s: float | None) -> None:
        """The engine does not answer, or (None) answers again."""
        if silent_s and self.silent_s is None:
            logger.warning("the engine has not answered for %.0f s", silent_s)
        self.silent_s = silent_s

    @property
    def is_ready(self) -> bool:
        """Whether requests will be answered."""
        return self.service_state is State.READY and self.silent_s is None

    def stop(self) -> None:
        """The service was asked to end."""
        if self.state is not State.FAILED:
            self.state, self.phase = State.STOPPING, "stopping"

    def fail(self, error: GptOssBentoError, kind: str | None = None, log: Sequence[str] = ()) -> None:
        """The service cannot serve.

        Args:
            error: why.
            kind: the class of the cause, as engine/failure_cause.py names it.
            log: the last lines of the engine.
        """
        self.state, self.cause, self.kind, self.log = State.FAILED, str(error), kind, log

    @property
    def service_state(self) -> State:
        """What the service can do, rather than this worker alone."""
        return State.STARTING if self.state is State.READY and not self.others_ready() else self.state

    def report(self) -> dict[str, Any]:
        """The body of the readiness probe."""
        state = self.service_state
        report: dict[str, Any] = {
            "status": state.value,
            "phase": self.phase if state is self.state else "waiting for the other API workers",
            "phases": [self._phase(phase, seconds) for phase, seconds in self._finished],
        }
        if state is State.STARTING:
            report["seconds_in_phase"] = round(time.monotonic() - self._phase_started, 2)
            if self.detail:
                report["detail"] = self.detail
        if self.silent_s is not None:
            report["engine_silent_seconds"] = round(self.silent_s, 1)
        if self.cause:
            report["cause"] = self.cause
        if self.kind:
            report["cause_kind"] = self.kind
        return report

    def _phase(self, phase: str, seconds: float) -> dict[str, Any]:
        parts = {part: round(each, 2) for part, each in self._parts.get(phase, {}).items()}
        return {"phase": phase, "seconds": round(seconds, 2), **({"parts": parts} if parts else {})}

    def trouble(self) -> dict[str, Any] | None:
        """What is wrong with the engine, with its last output, for /health rather than a probe; or None."""
        if self.state is State.FAILED:
            return {"status": "failed", "cause": self.cause, "cause_kind": self.kind, "log": list(self.log)}
        if self.silent_s is not None:
            return {"status": "silent", "engine_silent_seconds": round(self.silent_s, 1)}
        return None
