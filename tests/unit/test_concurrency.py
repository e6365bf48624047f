from __future__ import annotations

import asyncio
import functools
import sys
import threading
from typing import Any

import pytest

from gptoss_bento.concurrency import in_daemon_thread, wait_or_timeout
from tests.waiting import HANG_S


class Interruption(BaseException):
    """Like KeyboardInterrupt, which asyncio would take for its own."""


async def test_result_is_returned() -> None:
    def add(left: int, *, right: int) -> int:
        return left + right

    assert await in_daemon_thread(add, 1, right=2) == 3


async def test_error_is_raised_where_it_is_awaited() -> None:
    def fail() -> None:
        raise ValueError("from the thread")

    with pytest.raises(ValueError, match="from the thread"):
        await in_daemon_thread(fail)


@pytest.mark.parametrize(("code", "words"), [(3, "exited with 3"), ("no GPU", "exited with no GPU")])
async def test_exit_in_the_work_is_an_error_where_it_is_awaited(code: int | str, words: str) -> None:
    with pytest.raises(RuntimeError, match=f"^{words}$"):
        await in_daemon_thread(sys.exit, code)


async def test_interruption_of_the_work_is_an_error_where_it_is_awaited() -> None:
    def fail() -> None:
        raise Interruption

    with pytest.raises(Interruption):
        await in_daemon_thread(fail)


async def test_work_without_a_name_is_done_too() -> None:
    assert await in_daemon_thread(functools.partial(divmod, 7), 2) == (3, 1)


async def test_work_runs_in_a_daemon_thread_named_for_it() -> None:
    def load_model() -> threading.Thread:
        return threading.current_thread()

    thread = await in_daemon_thread(load_model)

    assert thread.daemon
    assert thread.name == "load_model"
    assert thread is not threading.current_thread()


async def test_event_loop_continues_meanwhile() -> None:
    may_end = threading.Event()
    work = asyncio.create_task(in_daemon_thread(may_end.wait, 10))
    await asyncio.sleep(0)

    may_end.set()  # only reached because the loop is free

    assert await work


async def test_outcome_of_cancelled_work_is_dropped() -> None:
    started, may_end = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    errors: list[dict[str, Any]] = []

    def work() -> None:
        threads.append(threading.current_thread())
        started.set()
        may_end.wait(HANG_S)

    async def cancel() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        task = asyncio.create_task(in_daemon_thread(work))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_end.set()
        await asyncio.to_thread(threads[0].join, 10)
        await asyncio.sleep(0)  # the loop meets the outcome

    await asyncio.to_thread(asyncio.run, cancel())  # a separate loop, for its exception handler

    assert errors == []


def test_loop_closed_meanwhile_is_no_error() -> None:
    may_end = threading.Event()

    def outlives_its_loop() -> None:
        may_end.wait(HANG_S)

    async def leave_early() -> threading.Thread:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_daemon_thread(outlives_its_loop), 0.01)
        return next(thread for thread in threading.enumerate() if thread.name == "outlives_its_loop")

    thread = asyncio.run(leave_early())
    may_end.set()
    thread.join(HANG_S)

    assert not thread.is_alive()  # had it raised, pytest would fail this test for the unhandled exception


# Waiting


async def test_wait_ends_with_the_event() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)

    assert await wait_or_timeout(event, 3600)


async def test_wait_times_out_without_the_event() -> None:
    assert not await wait_or_timeout(asyncio.Event(), 0.001)


async def test_wait_can_be_cancelled() -> None:
    task = asyncio.create_task(wait_or_timeout(asyncio.Event(), 3600))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
