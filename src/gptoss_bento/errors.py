"""Everything that can stop the service, as one tree.

    GptOssBentoError
    ├── ConfigurationError     78  a variable, profile, argument or config.json is wrong
    │   └── HardwareError      78  this machine cannot serve what was asked
    ├── ArtifactError          69  weights, tokenizer or vocabulary cannot be had
    ├── AddressInUseError      71  the port is taken
    ├── JobStoreError          75  the database of the jobs does not answer
    ├── MachineError           74  the disk is full, a GPU is lost, or a folder may not be written
    ├── EngineStartError       70  vLLM refused to start
    ├── EngineDiedError        75  vLLM died while serving, hangs, was killed, or a start took too long
    ├── WorkerDiedError        75  a worker process was killed
    └── BenchmarkError          1  what was measured says nothing; `gptoss-bento bench` only

The number is the exit code of the whole service, taken from sysexits.h. 75 (EX_TEMPFAIL) is the only one after which
starting again unchanged is likely to help; docs/exit-codes.md says what to do about each.
"""

from __future__ import annotations


class GptOssBentoError(Exception):
    """Base of all errors that end the service. The message is one sentence an operator can act on."""

    exit_code = 1


class ConfigurationError(GptOssBentoError):
    """A setting, profile, argument or the model's config.json is wrong; starting again cannot help."""

    exit_code = 78


class HardwareError(ConfigurationError):
    """The hardware found here cannot serve the chosen profile."""


class ArtifactError(GptOssBentoError):
    """A model folder, weights file or the Harmony vocabulary is missing, unreachable or damaged."""

    exit_code = 69


class AddressInUseError(GptOssBentoError):
    """Another process listens on the port."""

    exit_code = 71


class EngineStartError(GptOssBentoError):
    """vLLM did not start with these arguments on this machine."""

    exit_code = 70
    exit_signal: int | None = None
    """The signal that ended the engine's process, if one did."""


class EngineDiedError(GptOssBentoError):
    """vLLM stopped while it was serving, was killed, or was not ready in time; a new start may help."""

    exit_code = 75


class WorkerDiedError(GptOssBentoError):
    """A worker process died without a cause; a new start may help."""

    exit_code = 75


class MachineError(GptOssBentoError):
    """Something of this machine that a restart meets again: a full disk, a lost GPU, a folder of another user."""

    exit_code = 74


class JobStoreError(GptOssBentoError):
    """The database that keeps the jobs could not be opened; a new start may help."""

    exit_code = 75


class BenchmarkError(GptOssBentoError):
    """A request of a benchmark failed, or what is to be measured is not there; the figures would say nothing."""
