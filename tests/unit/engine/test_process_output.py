from __future__ import annotations

import subprocess
import sys
import time

import pytest

from gptoss_bento.engine.process_output import ProcessLog
from tests.waiting import HANG_S

PREFIX = "(EngineCore pid=1) ERROR 11-22 14:00:00 [core.py:1] "


def cause_of(*lines: str) -> str | None:
    log = ProcessLog()
    for line in lines:
        log.add(f"{line}\n")
    return log.cause()


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("RuntimeError: boom", "RuntimeError: boom"),
        (f"{PREFIX}RuntimeError: boom", "RuntimeError: boom"),
        (f"\x1b[0;36m(EngineCore pid=1)\x1b[0;0m {PREFIX}ValueError: bad", "ValueError: bad"),
        (
            f"{PREFIX}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        ),
        (f"{PREFIX}KeyError: 'model.layers.0'", "KeyError: 'model.layers.0'"),
        ("ValueError: a: b: c", "ValueError: a: b: c"),
    ],
)
def test_exception_is_found_in_a_line_of_vllm(line: str, cause: str) -> None:
    assert cause_of(line) == cause


@pytest.mark.parametrize(
    "line",
    [
        "INFO 11-22 14:00:00 [loader.py:1] Loading took 3 s",
        "WARNING: Error rate is high",
        f"{PREFIX}Traceback (most recent call last):",
        f"{PREFIX}  raise RuntimeError(message)",
        "RuntimeError:",
        "an error: none of ours",
        "",
    ],
)
def test_lines_of_other_kinds_are_no_cause(line: str) -> None:
    assert cause_of(line) is None


@pytest.mark.parametrize(
    "consequence",
    [
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        f"{PREFIX}RuntimeError: See root cause above",
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)",
    ],
)
def test_consequence_is_passed_over_for_its_cause(consequence: str) -> None:
    assert cause_of(f"{PREFIX}ValueError: the cause", "INFO something else", consequence) == "ValueError: the cause"
    assert cause_of(consequence) is None


def test_last_exception_is_the_cause() -> None:
    assert cause_of("OSError: earlier and handled", "INFO going on", "RuntimeError: boom") == "RuntimeError: boom"


def test_lines_are_kept_up_to_a_number() -> None:
    assert cause_of("RuntimeError: long ago", *["INFO request"] * 200) is None
    assert cause_of("RuntimeError: just now", *["INFO request"] * 199) == "RuntimeError: just now"


def test_lines_of_minutes_ago_are_no_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    log = ProcessLog()
    log.add("OSError: earlier and handled")
    began = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: began + 301)
    assert log.cause() is None
    assert log.last() == ["OSError: earlier and handled"]
    log.add("RuntimeError: boom")
    assert log.cause() == "RuntimeError: boom"


# Prints through a tap, lets go of it, prints the cause that it saw, and waits for its reader before it ends.
SCRIPT = r"""
import os, subprocess, sys
from gptoss_bento.engine.process_output import ProcessLog

log = ProcessLog()
log.tap()
print("from Python", flush=True)
os.write(1, b"bytes \xff\xfe, \x1b[31mcolour\x1b[0m\r\n\n")
subprocess.run(["sh", "-c", "echo child; echo 'ValueError: from a child' >&2"], check=True)
print("to stderr", file=sys.stderr, flush=True)
sys.stdin.readline()
log.untap()
print(log.cause(), flush=True)
sys.stdin.readline()
"""


def test_output_of_this_process_and_its_children_is_passed_on_unchanged() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        out = [process.stdout.readline() for _ in range(4)]
        errors = [process.stderr.readline() for _ in range(2)]
        process.stdin.write(b"\n")
        process.stdin.flush()
        cause = process.stdout.readline()
        process.stdin.write(b"\n")
        process.stdin.flush()
        rest = process.stdout.read(), process.stderr.read()

    assert out == [b"from Python\n", b"bytes \xff\xfe, \x1b[31mcolour\x1b[0m\r\n", b"\n", b"child\n"]
    assert errors == [b"ValueError: from a child\n", b"to stderr\n"]
    assert cause == b"ValueError: from a child\n"
    assert rest == (b"", b"")
    assert process.returncode == 0


# Untaps immediately after many lines, the last of them from a child; later lines are not tapped.
MANY_LINES = r"""
import os, subprocess, sys
from gptoss_bento.engine.process_output import ProcessLog

log = ProcessLog()
log.tap()
for number in range(2000):
    print("line", number)
    print("error", number, file=sys.stderr)
subprocess.run(["sh", "-c", "echo last; echo 'ValueError: from a child' >&2"], check=True)
log.untap()
print(log.cause(), flush=True)
os._exit(0)
"""


def test_output_at_the_end_is_not_lost() -> None:
    ended = subprocess.run([sys.executable, "-c", MANY_LINES], capture_output=True, text=True, timeout=HANG_S)

    assert ended.returncode == 0, ended.stderr
    out, errors = ended.stdout.splitlines(), ended.stderr.splitlines()
    assert [line for line in out if line.startswith("line")] == [f"line {number}" for number in range(2000)]
    assert [line for line in errors if line.startswith("error")] == [f"error {number}" for number in range(2000)]
    assert "last" in out
    assert out[-1] == "ValueError: from a child"


CHILD_THAT_STAYS = r"""
import subprocess, sys
from gptoss_bento.engine import process_output as process_log

process_log._FINAL_OUTPUT_S = 0.05
log = process_log.ProcessLog()
log.tap()
child = subprocess.Popen(["sleep", "60"])
print("before", flush=True)
log.untap()
print("after", flush=True)
child.kill()
child.wait()
"""


def test_child_that_stays_does_not_hold_up_the_end() -> None:
    ended = subprocess.run([sys.executable, "-c", CHILD_THAT_STAYS], capture_output=True, text=True, timeout=HANG_S)

    assert (ended.stdout.splitlines(), ended.stderr) == (["before", "after"], "")


PROGRESS = r"""
import os, sys
from gptoss_bento.engine.process_output import ProcessLog

log = ProcessLog()
log.tap()
os.write(1, b"\rloading 50%")
sys.stdin.readline()
log.untap()
"""


def test_progress_is_passed_on_before_its_line_ends() -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin
        assert process.stdout
        seen = process.stdout.read(len(b"\rloading 50%"))  # would wait for ever, were the rest of the line awaited
        process.stdin.write(b"\n")
        process.stdin.flush()
        rest = process.stdout.read()

    assert (seen, rest) == (b"\rloading 50%", b"")
