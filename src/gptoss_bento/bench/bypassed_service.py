"""service.py with a way past its guards, for `gptoss-bento bench guards`. A server of it asks for no keys."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp

from gptoss_bento.bench.bypass import BypassedAuthentication, bypassed
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.server import app
from gptoss_bento.server.app import guarded_engine
from gptoss_bento.server.worker import Worker


def _bypassed_engine(worker: Worker, server: ServerSettings) -> Callable[[], ASGIApp | None]:
    return bypassed(guarded_engine(worker, server), lambda: worker.openai_app)


# Before service.py assembles the service of them.
app.Authentication = BypassedAuthentication  # type: ignore[attr-defined]
app.guarded_engine = _bypassed_engine

from service import GptOss  # noqa: E402

__all__ = ["GptOss"]
