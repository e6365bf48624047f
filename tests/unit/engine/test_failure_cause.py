from __future__ import annotations

import signal

import pytest

from gptoss_bento.engine.failure_cause import classify, explained
from gptoss_bento.errors import ArtifactError, EngineDiedError, EngineStartError, GptOssBentoError

PREFIX = "(EngineCore pid=1) ERROR 11-22 14:00:00 [core.py:1] "


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("OSError: [Errno 28] No space left on device: '/cache/x'", "disk full"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "out of GPU memory"),
        ("torch.OutOfMemoryError: HIP out of memory. Tried to allocate 20.00 MiB", "out of GPU memory"),
        ("ValueError: No available memory for the cache blocks.", "out of GPU memory"),
        ("torch.AcceleratorError: CUDA error: an illegal memory access was encountered", "illegal memory access"),
        ("RuntimeError: CUDA error: device-side assert triggered", "illegal memory access"),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "GPU lost"),
        ("RuntimeError: No CUDA-capable device is detected", "GPU lost"),
        ("Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down executor.", "worker lost"),
        ("torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:94", "worker lost"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", "out of memory"),
        ("OSError: [Errno 12] Cannot allocate memory", "out of memory"),
        ("KeyError: 'x'", "unknown"),
        ("torch uses 12 GB of memory on cuda:0", "unknown"),
    ],
)
def test_failure_cause_is_classified_by_the_last_lines(line: str, name: str) -> None:
    assert classify(["INFO all is well", PREFIX + line, "INFO bye"]).name == name


def test_last_cause_counts() -> None:
    assert classify(["CUDA out of memory", "No space left on device"]).name == "disk full"


def test_failure_cause_of_a_killed_process_ignores_the_lines() -> None:
    cause = classify(["CUDA out of memory"], signal.SIGKILL)

    assert cause.name == "killed"
    assert "CUDA" not in str(explained(EngineDiedError("It died"), cause, "RuntimeError: CUDA out of memory"))


@pytest.mark.parametrize("kind", [EngineStartError, EngineDiedError])
@pytest.mark.parametrize(("line", "exit_code"), [("No space left on device", 74), ("GPU is lost", 74), ("x", None)])
def test_failure_cause_of_the_machine_has_its_exit_code(
    kind: type[GptOssBentoError], line: str, exit_code: int | None
) -> None:
    error = explained(kind("It died"), classify([line]), f"RuntimeError: {line}")

    assert error.exit_code == (exit_code or kind.exit_code)
    assert str(error).startswith(f"It died. Cause: RuntimeError: {line}")


def test_failure_cause_is_followed_by_the_remedy() -> None:
    cause = classify(["CUDA out of memory"])

    assert str(explained(EngineDiedError("It died"), cause, "RuntimeError: CUDA out of memory")) == (
        "It died. Cause: RuntimeError: CUDA out of memory "
        "[out of GPU memory: lower GPU_MEMORY_UTILIZATION, MAX_MODEL_LEN or MAX_NUM_SEQS]"
    )


def test_failure_cause_without_lines_is_unknown() -> None:
    assert str(explained(EngineDiedError("It died"), classify([]), None)) == "It died"


def test_errors_of_other_kinds_are_left_unchanged() -> None:
    error = ArtifactError("No model")

    assert explained(error, classify(["No space left on device"]), None) is error
