"""Gauges of the engine that several workers set: a late worker must not overwrite a newer value.

vLLM sends the numbers of a step to one of its clients, and prometheus_client shows the value that was set last. A
worker that reads its messages late would set an old value ("1 running"), and nothing corrects it while the engine is
idle: a replica without work would never be scaled down. So a gauge here takes the time of the engine's message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from prometheus_client import Gauge

_BEFORE_ALL_S = 1e-9  # prometheus_client leaves out what was set at 0


class _Dated(Protocol):
    @property
    def timestamp(self) -> float: ...


_Message = TypeVar("_Message", bound=_Dated)


class EngineClock:
    """The engine's time of the message that this worker handles. All workers compare by the same clock."""

    def __init__(self) -> None:
        self.seconds = _BEFORE_ALL_S

    def following(self, receive: Callable[[], Awaitable[_Message]]) -> Callable[[], Awaitable[_Message]]:
        """`receive`, which sets this clock to each message that it returns."""

        async def receive_dated() -> _Message:
            message = await receive()
            self.seconds = message.timestamp
            return message

        return receive_dated

    def gauge(self) -> type[Gauge]:
        """prometheus_client's gauge, whose most recent value is that of the engine's latest message.

        Not before a worker runs; see jobs/metrics.py.
        """
        from prometheus_client import Gauge

        clock = self

        class EngineGauge(Gauge):
            def set(self, value: float) -> None:
                if self._is_most_recent:
                    self._value.set(float(value), timestamp=clock.seconds)
                else:
                    super().set(value)

        return EngineGauge
