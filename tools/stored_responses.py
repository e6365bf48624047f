"""How long clients wait for a stored response among many: `python -m tools.stored_responses --count 100000`.

Fills a database, starts the service without vLLM on it, and asks for responses of random rows, one after the other.
With `--url` the database is PostgreSQL's; its schema is made there, so it should be an empty one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import quantiles

import httpx
import sqlalchemy as sa

from gptoss_bento.state.clock import now_ms
from gptoss_bento.state.migrations import open_database
from gptoss_bento.state.response import ResponseStatus
from gptoss_bento.state.schema import RESPONSE_ITEMS, RESPONSES
from gptoss_bento.strict_json import dumps
from tests.holds import serve_without_vllm
from tests.server import NO_TLS

_ROWS_PER_TRANSACTION = 2000
_DAY_MS = 86_400_000
_TEXT = "A sentence of an answer of usual length. " * 20  # 820 characters
_ROUTES = ("/v1/responses/{}", "/v1/responses/{}/input_items")


async def fill(url: str, count: int) -> None:
    """Stores so many responses, each with one item of its request and one of its output."""
    async with open_database(url, Path("unused")) as database:
        for first in range(1, count + 1, _ROWS_PER_TRANSACTION):
            chunk = range(first, min(first + _ROWS_PER_TRANSACTION, count + 1))
            await database.run(lambda connection, chunk=chunk: _add(connection, chunk), writes=True)  # type: ignore[misc]


def _add(connection: sa.Connection, rows: Sequence[int]) -> None:
    connection.execute(sa.insert(RESPONSES), [_row(seq) for seq in rows])
    connection.execute(sa.insert(RESPONSE_ITEMS), [item for seq in rows for item in _items(seq)])


def _row(seq: int) -> dict[str, object]:
    return {
        "seq": seq,
        "owner": "",
        "id": _id(seq),
        "status": ResponseStatus.COMPLETED.value,
        "object": dumps({"id": _id(seq), "object": "response", "status": "completed", "instructions": _TEXT}),
        "event_count": 0,
        "keeps_events": False,
        "expires_at": now_ms() + _DAY_MS,
    }


def _items(seq: int) -> Iterator[dict[str, object]]:
    for position, role, kind in ((0, "user", "input_text"), (1_000_000, "assistant", "output_text")):
        item_id = f"msg_{seq}_{position}"
        content = [{"type": kind, "text": _TEXT}]
        text = dumps({"id": item_id, "type": "message", "role": role, "status": "completed", "content": content})
        yield {"response_seq": seq, "position": position, "is_output": position > 0, "id": item_id, "item": text}


def _id(seq: int) -> str:
    return f"resp_{seq:08d}"


def seconds(client: httpx.Client, route: str, ids: Sequence[str]) -> list[float]:
    """How long each of these took.

    Raises:
        httpx.HTTPStatusError: one was not found.
    """
    taken = []
    for response_id in ids:
        started = time.perf_counter()
        client.get(route.format(response_id)).raise_for_status()
        taken.append(time.perf_counter() - started)
    return taken


def measure(folder: Path, url: str, count: int, asked: int) -> None:
    """Prints the times of each route. The service keeps all of them: they have an owner's bound otherwise."""
    variables = {"JOB_STORE_URL": url, "RESPONSES_MAX": str(2 * count)}
    with serve_without_vllm(folder, variables) as served:
        served.wait_until_ready()
        with httpx.Client(base_url=served.url, verify=NO_TLS, timeout=60) as client:
            for route in _ROUTES:
                drawn = random.choices(range(1, count + 1), k=asked)  # noqa: S311
                taken = seconds(client, route, [_id(seq) for seq in drawn])
                parts = quantiles(taken, n=100)
                shown = ", ".join(f"p{part} {1000 * parts[part - 1]:.1f} ms" for part in (50, 90, 99))
                print(f"GET {route.format('ID')}: {shown} ({asked} of {count})")


def main() -> None:
    """Fills, serves, asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="responses in the store")
    parser.add_argument("--asked", type=int, default=2000, help="requests for each route")
    parser.add_argument("--url", help="a PostgreSQL database, as JOB_STORE_URL names it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = arguments.url or f"sqlite:///{folder / 'responses.sqlite3'}"
        started = time.perf_counter()
        asyncio.run(fill(url, arguments.count))
        print(f"{arguments.count} responses stored in {time.perf_counter() - started:.0f} s")
        measure(folder, url, arguments.count, arguments.asked)


if __name__ == "__main__":
    main()
