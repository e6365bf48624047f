from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from gptoss_bento.engine.kernel_compilations import Compilation, KernelCompilations, summary
from gptoss_bento.engine.vllm_plugin.compilations import SERVING, Recorder

NUMBER, SECONDS = "gptoss_bento_jit_compilations_total", "gptoss_bento_jit_compilation_seconds_total"


def counted() -> dict[str, tuple[float, float]]:
    """How many and how many seconds, by phase."""
    return {phase: (value(NUMBER, phase), round(value(SECONDS, phase), 3)) for phase in ("start", "serving")}


def value(metric: str, phase: str) -> float:
    found = REGISTRY.get_sample_value(metric, {"phase": phase})
    assert found is not None, "shown as 0 from the start"
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "note.compilations"


@pytest.fixture
def since(path: Path) -> Callable[[], dict[str, tuple[float, float]]]:
    """What is counted more than when the test began."""
    KernelCompilations(path)  # makes the metrics
    before = counted()
    return lambda: {
        phase: (number - before[phase][0], round(seconds - before[phase][1], 3))
        for phase, (number, seconds) in counted().items()
    }


Since = Callable[[], dict[str, tuple[float, float]]]


def write(path: Path, *compiled: tuple[str, float]) -> None:
    with path.open("a") as file:
        for kernel, seconds in compiled:
            file.write(json.dumps({"kernel": kernel, "seconds": seconds}) + "\n")


def messages(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_compilations_count_for_the_phase_in_which_they_were_found(path: Path, since: Since) -> None:
    compilations = KernelCompilations(path)
    write(path, ("a", 1.5), ("b", 0.25))
    compilations.ready()
    assert since() == {"start": (2, 1.75), "serving": (0, 0)}

    write(path, ("a", 0.5))
    compilations.check()
    compilations.check()
    assert since() == {"start": (2, 1.75), "serving": (1, 0.5)}, "each counts once"


def test_lines_of_the_recorder_are_read(path: Path, since: Since) -> None:
    Recorder(path).end()
    KernelCompilations(path).check()

    assert since()["serving"][0] == 1


def test_line_that_is_half_written_waits_for_its_end(path: Path, since: Since) -> None:
    compilations = KernelCompilations(path)
    line = json.dumps({"kernel": "ä", "seconds": 1.0}, ensure_ascii=False).encode() + b"\n"
    path.write_bytes(line + line[:13])  # in the middle of a character
    compilations.check()
    assert since()["serving"] == (1, 1)

    with path.open("ab") as file:
        file.write(line[13:])
    compilations.check()
    assert since()["serving"] == (2, 2)


def test_line_of_which_a_full_disk_kept_a_part_is_passed_over(path: Path, since: Since) -> None:
    compilations = KernelCompilations(path)
    path.write_bytes(b'{"kernel": "a", "sec')
    write(path, ("b", 1.0), ("c", 2.0))

    compilations.check()

    assert since()["serving"] == (1, 2), "b was written right behind the half of a"


def test_ready_goes_on_where_no_file_can_be_made(path: Path) -> None:
    KernelCompilations(path.parent / "missing" / "record").ready()


def test_record_that_is_not_there_yet_is_read_when_it_is(
    path: Path, since: Since, caplog: pytest.LogCaptureFixture
) -> None:
    compilations = KernelCompilations(path)
    compilations.ready()
    compilations.check()
    assert since() == {"start": (0, 0), "serving": (0, 0)}
    assert messages(caplog) == []

    write(path, ("late", 1))
    compilations.check()
    assert since()["serving"] == (1, 1)


def test_worker_without_a_record_counts_and_logs_nothing(
    since: Since, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """One that does not own the engine."""
    compilations = KernelCompilations(None)
    compilations.ready()
    compilations.check()

    assert since() == {"start": (0, 0), "serving": (0, 0)}
    assert messages(caplog) == []
    assert list(tmp_path.iterdir()) == []


def test_engine_is_notified_that_the_service_is_ready(path: Path) -> None:
    compilations = KernelCompilations(path)
    assert not path.with_suffix(SERVING).exists()

    compilations.ready()

    assert path.with_suffix(SERVING).exists()


# The log


def test_start_logs_how_long_its_parts_took(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compilations = KernelCompilations(path)
    write(path, ("module.slow", 2.0), ("module.quick", 0.01))
    compilations.ready()

    assert messages(caplog) == [
        ("INFO", "kernels compiled or loaded at the start: 2 in 2.0 s (slow 2.0 s, quick 0.0 s)")
    ]


def test_kernel_that_lets_streams_wait_is_named(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compilations = KernelCompilations(path)
    write(path, ("module.slow", 0.5), ("module.loaded", 0.02))
    compilations.check()

    assert messages(caplog) == [("WARNING", "streams waited while the engine compiled: 1 in 0.5 s (slow 0.5 s)")]


def test_kernels_that_were_loaded_from_a_cache_are_counted_in_silence(
    path: Path, since: Since, caplog: pytest.LogCaptureFixture
) -> None:
    compilations = KernelCompilations(path)
    with caplog.at_level(logging.DEBUG):
        write(path, ("loaded", 0.02), ("loaded", 0.03))
        compilations.check()

    assert since()["serving"] == (2, 0.05)
    assert messages(caplog) == []


def test_summary_names_the_five_kernels_that_took_most() -> None:
    found = [Compilation(f"module.k{number}", number) for number in range(1, 8)] + [Compilation("other.k1", 10)]

    assert summary(found) == "8 in 38.0 s (k1 11.0 s, k7 7.0 s, k6 6.0 s, k5 5.0 s, k4 4.0 s)"
