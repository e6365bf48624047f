"""What an engine died of, from its last lines of output. Pure.

Sources of the patterns: messages of CUDA, HIP and NCCL as PyTorch 2.13 passes them on, of vLLM 0.32's executors, and of
the C library.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from gptoss_bento.errors import EngineDiedError, EngineStartError, GptOssBentoError, MachineError


@dataclass(frozen=True)
class Death:
    """A class of causes.

    Attributes:
        name: what it is called, for people and machines.
        remedy: what helps.
        is_of_the_machine: whether a restart in the same place meets the same cause.
    """

    name: str
    remedy: str
    is_of_the_machine: bool = False


_KINDS: tuple[tuple[Death, re.Pattern[str]], ...] = tuple(
    (death, re.compile(pattern, re.IGNORECASE))
    for death, pattern in (
        (
            Death("disk full", "free space on the volume that the message names", is_of_the_machine=True),
            r"no space left on device|disk quota exceeded|database or disk is full",
        ),
        (
            Death("GPU lost", "see nvidia-smi and the kernel's log; another machine", is_of_the_machine=True),
            r"gpu is lost|fallen off the bus|uncorrectable ecc|no cuda-capable device|cudaerrordevicesunavailable"
            r"|cuda-capable device\(s\) is/are busy or unavailable|hiperrornodevice",
        ),
        (
            Death("out of GPU memory", "lower GPU_MEMORY_UTILIZATION, MAX_MODEL_LEN or MAX_NUM_SEQS"),
            r"out ?of ?memory(error)?:.*(cuda|hip|gpu)|(cuda|hip)( error:)? out of memory|cudaerrormemoryallocation"
            r"|cublas_status_alloc_failed|no available memory for the cache blocks",
        ),
        (
            Death("illegal memory access", "a fault of a GPU kernel; if it comes again, report it with the log"),
            r"illegal memory access|misaligned address|device-side assert|illegal instruction was encountered"
            r"|unspecified launch failure|memory access fault by gpu",
        ),
        (
            Death("worker lost", "the first lines above it in the log say what the worker died of"),
            r"worker ?proc \S+ died unexpectedly|nccl(remote|system|internal|unhandled ?cuda)? ?error|ncclcommabort"
            r"|connection closed by peer.*gloo|rank \d+ .*timed? ?out",
        ),
        (
            Death("out of memory", "more memory for the container, or lower CPU_OFFLOAD_GB and VLLM_CPU_KVCACHE_SPACE"),
            r"\bmemoryerror\b|cannot allocate memory|defaultcpuallocator: can't allocate|std::bad_alloc",
        ),
    )
)
_KILLED = Death("killed", "by the kernel for lack of memory, or by somebody; the kernel's log tells")
_UNKNOWN = Death("unknown", "the engine's log is above")
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP)


def classify(lines: Sequence[str], exit_signal: int | None = None) -> Death:
    """The kind of a death.

    Args:
        lines: the last that the engine printed.
        exit_signal: the signal that ended its process, if one did.
    """
    if exit_signal == signal.SIGKILL:
        return _KILLED
    for line in reversed(lines):
        for death, pattern in _KINDS:
            if pattern.search(line):
                return death
    if exit_signal in _FAULTS:
        name = signal.Signals(exit_signal).name
        return Death("crashed", f"{name}, a fault of native code; if it comes again, report it with the log")
    return _UNKNOWN


def explained(error: GptOssBentoError, death: Death, cause: str | None) -> GptOssBentoError:
    """The error with its cause, and with the exit code that fits.

    Where the machine is at fault no restart helps; after SIGKILL one may, also when it came during the start.
    """
    if not isinstance(error, (EngineStartError, EngineDiedError)):
        return error
    text = str(error)
    if cause and death is not _KILLED:  # nothing that was printed before has to do with SIGKILL
        text += f". Cause: {cause}"
    if death is not _UNKNOWN:
        text += f" [{death.name}: {death.remedy}]"
    if death is _KILLED:
        return EngineDiedError(text)
    return (MachineError if death.is_of_the_machine else type(error))(text)
