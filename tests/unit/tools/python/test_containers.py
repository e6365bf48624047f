"""Containers: state for each, bounds for all, ends that the model reads of, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gptoss_bento.tools.python.containers import Containers, Limits
from gptoss_bento.tools.python.process import Child, StartError, start
from gptoss_bento.tools.python.usage import usage
from tests.unit.tools.python.outside import SECRET, Outside
from tests.waiting import HANG_S, until


class Started:
    """Starts children, and keeps them."""

    def __init__(self) -> None:
        self.children: list[Child] = []

    async def __call__(self, limits: Limits) -> Child:
        self.children.append(await start(limits))
        return self.children[-1]


@asynccontextmanager
async def limited_to(
    start_child: Callable[[Limits], Awaitable[Child]] = start, **limits: float
) -> AsyncIterator[Containers]:
    values = {"timeout_s": HANG_S, "grace_s": HANG_S, **limits}
    containers = Containers(Limits(**values), start_child)  # type: ignore[arg-type]  # some are whole numbers
    try:
        yield containers
    finally:
        await containers.close()


async def test_ids_are_made_up(containers: Containers) -> None:
    assert re.fullmatch(r"cntr_[0-9a-f]{32}", containers.new_id())
    assert containers.new_id() != containers.new_id()


async def test_id_of_another_worker_says_that_variables_are_lost(containers: Containers) -> None:
    container = "cntr_of_another_worker"

    assert (
        await containers.run(container, "1")
    ).text == "[Python was restarted: variables of earlier calls are lost.]\n1"
    assert (await containers.run(container, "1")).text == "1"


async def test_owners_that_name_one_container_have_one_each(containers: Containers) -> None:
    container = containers.new_id()
    assert (await containers.run(container, "secret = 5", "alice")).failed is False

    for owner in ("bob", ""):
        assert "NameError" in (await containers.run(container, "secret", owner)).text
    assert (await containers.run(container, "secret", "alice")).text == "5"


async def test_variables_last_and_are_not_shared(containers: Containers) -> None:
    one, other = containers.new_id(), containers.new_id()
    await containers.run(one, "x = 5\nimport math; math.pi = 3")

    assert (await containers.run(one, "x, math.pi")).text == "(5, 3)"
    assert "NameError" in (await containers.run(other, "x")).text
    assert (await containers.run(other, "import math; math.pi > 3")).text == "True"


async def test_run_says_whether_it_failed(containers: Containers) -> None:
    container = containers.new_id()

    assert not (await containers.run(container, "2**200 % 97")).failed
    assert (await containers.run(container, "1 / 0")).failed


async def test_output_of_both_streams_is_in_the_order_of_writing(containers: Containers) -> None:
    code = "import os, sys\nprint('a')\nprint('b', file=sys.stderr)\nos.write(1, b'c\\n')\nprint('d', end='')"

    assert (await containers.run(containers.new_id(), code)).text == "a\nb\nc\nd"


async def test_code_longer_than_a_pipe_is_run(containers: Containers) -> None:
    assert (await containers.run(containers.new_id(), f"len('{'x' * 500_000}')")).text == "500000"


async def test_code_that_is_too_long_is_not_run() -> None:
    async with limited_to(code_bytes=10) as containers:
        assert (
            await containers.run(containers.new_id(), "print('hello')")
        ).text == "[The code is longer than 10 bytes.]"


async def test_calls_of_one_container_run_in_turn(containers: Containers) -> None:
    container = containers.new_id()
    await containers.run(container, "x = []")

    await asyncio.gather(*(containers.run(container, f"x.append({number})") for number in range(20)))

    assert (await containers.run(container, "x == list(range(20))")).text == "True"


async def test_numpy_and_threads_work(containers: Containers) -> None:
    pytest.importorskip("numpy")
    code = (
        "import numpy, concurrent.futures as f\na = numpy.ones((300, 300))\n"
        "with f.ThreadPoolExecutor(4) as pool: print(sum(pool.map(lambda i: (a @ a)[0, 0], range(8))))"
    )

    assert (await containers.run(containers.new_id(), code)).text == "2400.0"


async def test_sympy_is_imported(containers: Containers) -> None:
    pytest.importorskip("sympy")

    assert (
        await containers.run(containers.new_id(), "import sympy\nsympy.integrate(sympy.Symbol('x') ** 2)")
    ).text == "x**3/3"


@pytest.mark.parametrize(
    "module", ["asyncio", "ssl", "sqlite3", "zoneinfo", "decimal", "multiprocessing", "http.server", "unittest", "lzma"]
)
async def test_standard_library_is_imported(module: str, containers: Containers) -> None:
    assert (await containers.run(containers.new_id(), f"import {module}\n'fine'")).text == "'fine'"


async def test_environment_has_nothing_of_the_service(outside: Outside, containers: Containers) -> None:
    assert outside.problems() == []

    ran = await containers.run(containers.new_id(), "import os; print(dict(os.environ))")

    assert "OUTSIDE" not in ran.text
    assert SECRET not in ran.text
    assert "OPENBLAS_NUM_THREADS" in ran.text


async def test_descriptors_are_five_of_its_own(containers: Containers) -> None:
    reads, writes = os.pipe()
    os.set_inheritable(reads, True)
    os.set_inheritable(writes, True)
    code = (
        "import os\ndef is_open(n):\n    try: return bool(os.fstat(n))\n    except OSError: return False\n"
        "[n for n in range(64) if is_open(n)]"
    )

    ran = await containers.run(containers.new_id(), code)

    os.close(reads)
    os.close(writes)
    assert ran.text == "[0, 1, 2, 3, 4]"


async def test_status_of_the_process_shows_its_confinement() -> None:
    started = Started()
    async with limited_to(started) as containers:
        await containers.run(containers.new_id(), "1")
        with open(f"/proc/{started.children[0].pid}/status") as status:  # noqa: ASYNC230, PTH123
            shown = dict(re.findall(r"^(\w+):\s+(.*)$", status.read(), re.MULTILINE))

    assert (shown["NoNewPrivs"], shown["Seccomp"], int(shown["CapEff"], 16)) == ("1", "2", 0)


async def test_process_is_stopped_between_two_calls() -> None:
    started = Started()
    code = (
        "import threading, time\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()"
    )
    async with limited_to(started) as containers:
        container = containers.new_id()
        await containers.run(container, code)

        await until(lambda: state_of(started.children[0].pid) == "T")

        assert (await containers.run(container, "1 + 1")).text == "2"


async def test_thread_that_prints_without_end_holds_up_no_later_call(containers: Containers) -> None:
    container = containers.new_id()
    code = (
        "import os, threading\ndef flood():\n    while True: os.write(1, b'.' * 1000)\n"
        "threading.Thread(target=flood, daemon=True).start()"
    )

    ran = [await containers.run(container, cell) for cell in (code, "1", "2")]

    assert [result.failed for result in ran] == [False, False, False]
    assert "..." in ran[2].text


def state_of(pid: int) -> str:
    """The kernel's letter: R runs, S sleeps, T is stopped, Z is a zombie."""
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        return stat.read().rpartition(")")[2].split()[0]


async def test_cancelled_call_kills_its_process() -> None:
    started = Started()
    async with limited_to(started) as containers:
        container = containers.new_id()
        await containers.run(container, "x = 1")
        before_s = usage(started.children[0].pid).cpu_s
        call = asyncio.create_task(containers.run(container, "while True: pass"))
        await until(lambda: usage(started.children[0].pid).cpu_s > before_s + 0.05)  # it runs

        call.cancel()
        await asyncio.wait([call])

        assert call.cancelled()
        await started.children[0].ended()
        assert started.children[0].exit_code == -signal.SIGKILL
        again = await containers.run(container, "'x' in globals()")
        assert again.text == "[Python was restarted: variables of earlier calls are lost.]\nFalse"


@pytest.mark.parametrize("turns", range(8))
async def test_cancellation_at_any_moment_leaves_a_container_that_answers(turns: int) -> None:
    started = Started()
    async with limited_to(started) as containers:
        container = containers.new_id()
        if turns % 2:
            await containers.run(container, "1")
        call = asyncio.create_task(containers.run(container, "print('x' * 10**6)"))
        for _ in range(turns * turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])

        assert (await containers.run(container, "1 + 1")).text.endswith("2")
    assert all(child.has_ended for child in started.children)


async def test_container_ends_after_it_was_idle() -> None:
    started = Started()
    async with limited_to(started, idle_s=0.01) as containers:
        container = containers.new_id()
        await containers.run(container, "x = 1")

        await until(lambda: started.children[0].has_ended)

        assert (await containers.run(container, "1")).text.startswith("[Python was restarted")


async def test_longest_unused_container_ends_where_another_needs_room() -> None:
    started = Started()
    async with limited_to(started, containers=2) as containers:
        first, second, third = containers.new_id(), containers.new_id(), containers.new_id()
        for container in (first, second, first, third):
            await containers.run(container, "1")

        assert [child.has_ended for child in started.children] == [False, True, False]


async def test_calls_wait_where_all_processes_run() -> None:
    started = Started()
    async with limited_to(started, containers=2) as containers:
        ran = await asyncio.gather(*(containers.run(containers.new_id(), f"{number}") for number in range(10)))

    assert [result.text for result in ran] == [str(number) for number in range(10)]
    assert all(child.has_ended for child in started.children)


async def test_call_that_waits_too_long_is_not_run() -> None:
    async with limited_to(containers=1, timeout_s=0.2, grace_s=0.2) as containers:
        busy = asyncio.create_task(
            containers.run(containers.new_id(), "import signal; signal.signal(2, 1); signal.pause()")
        )
        await until(lambda: containers._containers)

        ran = await containers.run(containers.new_id(), "1")
        await busy

    assert ran.text == "[No Python was free within 0.2 s. Try again.]"


async def test_end_ends_the_call_that_runs() -> None:
    started = Started()
    async with limited_to(started) as containers:
        container = containers.new_id()
        call = asyncio.create_task(containers.run(container, "while True: pass"))
        await until(lambda: started.children)

        await containers.end(container)

        assert "killed by SIGKILL" in (await call).text
        await containers.end("cntr_of_no_container")


async def test_call_uses_no_more_cpu_time_than_it_may() -> None:
    async with limited_to(cpu_s=0.3) as containers:
        ran = await containers.run(containers.new_id(), "while True: pass")

    assert "[The call took more than 0.3 s of CPU time. It was interrupted. Variables are kept.]" in ran.text


async def test_start_that_fails_is_text_for_the_model(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: Limits) -> Child:
        raise StartError("why it did not")

    async with limited_to(fail) as containers:
        ran = await containers.run(containers.new_id(), "1")
        problem = await containers.problem()

    assert ran.text == "[Python could not be started. The log of the service says why.]"
    assert problem == "why it did not"
    assert "why it did not" in caplog.text


async def test_start_says_what_the_process_wrote() -> None:
    with pytest.raises(StartError, match="no Landlock here"):
        await start(Limits(), "raise SystemExit('no Landlock here')")


@pytest.mark.parametrize(
    ("program", "problem"),
    [("", "it ended with 0"), ("import os; os.abort()", "it ended with -6"), ("1 +", "SyntaxError")],
)
async def test_start_of_a_program_that_does_not_greet_is_an_error(program: str, problem: str) -> None:
    with pytest.raises(StartError, match=problem):
        await start(Limits(), program)


async def test_problem_is_none_where_python_runs() -> None:
    async with limited_to() as containers:
        assert await containers.problem() is None


async def test_hundred_runs_leave_no_process_and_no_descriptor() -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    started = Started()
    async with limited_to(started, containers=4) as containers:
        ran = await asyncio.gather(
            *(containers.run(containers.new_id(), f"x = {number}\nx * 2") for number in range(100))
        )

    assert [result.text for result in ran] == [str(2 * number) for number in range(100)]
    assert len(started.children) == 100
    assert all(child.has_ended for child in started.children)
    assert not {str(child.pid) for child in started.children} & set(os.listdir("/proc"))  # noqa: PTH208
    assert set(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
