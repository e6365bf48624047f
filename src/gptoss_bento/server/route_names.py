"""A name for every path, of which there are few: what metrics may have as a label. Pure."""

from __future__ import annotations

from gptoss_bento.http.paths import DOCS, HEALTHZ, PROBES, destination
from gptoss_bento.jobs.api.routes import route_of

OTHER = "other"
"""Whatever is no route."""

_OF_BENTOML = frozenset({"/", "/generate", *PROBES, HEALTHZ, DOCS, "/schema.json"})


def route_name(path: str) -> str:
    """The route that a path leads to, with names for its variable parts: `/status/{id}`. Prefixes are left out."""
    if path in _OF_BENTOML:
        return path
    if to := destination(path):
        return to.route
    return route_of(path) or OTHER
