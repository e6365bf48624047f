"""The cause of an engine's failure, from its last lines of output. Pure.

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
class Cause:
    """A class of causes.

    Attributes:
        name: what it is called, for people and machines.
        remedy: what helps.
        is_of_the_machine: whether a restart on the same machine meets the same cause.
    """

    name: str
    remedy: str
    is_of_the_machine: bool = False


_KINDS: tuple[tuple[Cause, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        (
            Cause("disk full", "free space on the volume that the message names", is_of_the_machine=True),
            r"no space left on device|disk quota exceeded|database or disk is full",
        ),
        (
            Cause("GPU lost", "see nvidia-smi and the kernel's log; another machine", is_of_the_machine=True),
            r"gpu is lost|fallen off the bus|uncorrectable ecc|no cuda-capable device|cudaerrordevicesunavailable"
            r"|cuda-capable device\(s\) is/are busy or unavailable|hiperrornodevice",
        ),
        (
            Cause("out of GPU memory", "lower GPU_MEMORY_UTILIZATION, MAX_MODEL_LEN or MAX_NUM_SEQS"),
            r"out ?of ?memory(error)?:.*(cuda|hip|gpu)|(cuda|hip)( error:)? out of memory|cudaerrormemoryallocation"
            r"|cublas_status_alloc_failed|no available memory for the cache blocks",
        ),
        (
            Cause("illegal memory access", "a fault of a GPU kernel; if it comes again, report it with the log"),
            r"illegal memory access|misaligned address|device-side assert|illegal instruction was encountered"
            r"|unspecified launch failure|memory access fault by gpu",
        ),
        (
            Cause("worker lost", "the first lines above it in the log say what the worker died of"),
            r"worker ?proc \S+ died unexpectedly|nccl(remote|system|internal|unhandled ?cuda)? ?error|ncclcommabort"
            r"|connection closed by peer.*gloo|rank \d+ .*timed? ?out",
        ),
        (
            Cause("out of memory", "more memory for the container, or lower CPU_OFFLOAD_GB and VLLM_CPU_KVCACHE_SPACE"),
            r"\bmemoryerror\b|cannot allocate memory|defaultcpuallocator: can't allocate|std::bad_alloc",
        ),
    )
)
_KILLED = Cause("killed", "by the kernel for lack of memory, or by an operator; see the kernel's log")
_UNKNOWN = Cause("unknown", "the engine's log is above")
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP)


def classify(lines: Sequence[str], exit_signal: int | None = None) -> Cause:
    """The kind of a failure.

    Args:
        lines: the last that the engine printed.
        exit_signal: the signal that ended its process, if one did.
    """
    if exit_signal == signal.SIGKILL:
        return _KILLED
    for line in reversed(lines):
        for kind, pattern in _KINDS:
            if pattern.search(line):
                return kind
    if exit_signal in _FAULTS:
        name = signal.Signals(exit_signal).name
        return Cause("crashed", f"{name}, a fault of native code; if it comes again, report it with the log")
    return _UNKNOWN


def explained(error: GptOssBentoError, kind: Cause, cause: str | None) -> GptOssBentoError:
    """The error with its cause, and with the exit code that fits.

    Where the machine is at fault no restart helps; after SIGKILL one may, also when it came during the start.
    """
    if not isinstance(error, (EngineStartError, EngineDiedError)):
        return error
    text = str(error)
    if cause and kind is not _KILLED:  # nothing that was printed before has to do with SIGKILL
        text += f". Cause: {cause}"
    if kind is not _UNKNOWN:
        text += f" [{kind.name}: {kind.remedy}]"
    if kind is _KILLED:
        return EngineDiedError(text)
    return (MachineError if kind.is_of_the_machine else type(error))(text)
