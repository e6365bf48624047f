"""What a WebSocket connection remembers."""

from __future__ import annotations

import sys
import tracemalloc

from gptoss_bento.responses.connection_memory import ConnectionMemory


def test_memory_takes_no_more_than_its_limit() -> None:
    """Each character of a text that has one wide one takes four bytes."""
    memory, items = ConnectionMemory(100_000), ["🙂" + "a" * 90_000]
    tracemalloc.start()
    memory.keep("resp_1", items)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 100_000 < sys.getsizeof(items[0])
    assert memory.items_of("resp_1") == items


def test_memory_counts_bytes_of_utf_8() -> None:
    memory = ConnectionMemory(20)
    memory.keep("resp_1", ["🙂🙂🙂🙂"])
    assert memory.has("resp_1")
    memory.keep("resp_2", ["🙂🙂🙂🙂🙂"])

    assert memory.items_of("resp_1") is None
    assert memory.items_of("resp_2") is None
