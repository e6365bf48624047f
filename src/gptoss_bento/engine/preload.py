"""Lets the engine's process begin with vLLM imported, instead of importing it for ten seconds after all else is ready.

A fork server of Python's multiprocessing imports vLLM while this process does the same and reads the configuration.
The engine's process is then forked from it. That server has one thread and no CUDA, so a fork of it is as clean as a
process that was spawned. `vllm.entrypoints` has the same for a start method that vLLM's settings no longer allow.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess

from gptoss_bento.config import process_environment
from gptoss_bento.engine import patches

_PRELOADED = "gptoss_bento.engine.preloaded_modules"


# BentoML's supervisor sends them to each child of a worker, a terminal to all. Through the server vLLM learns whether
# its engine lives: if it ended, an engine that drains would count as dead.
_NOT_FOR_THE_SERVER = (signal.SIGTERM, signal.SIGINT)


def begin(tokenizer: str = "") -> None:
    """Starts the fork server. Call it when the environment is what the engine shall see: it imports vLLM with it.

    Args:
        tokenizer: the model's folder, whose tokenizer is loaded too; empty where vLLM shall load it in its own way.
    """
    multiprocessing.set_forkserver_preload([_PRELOADED])
    resource_tracker.ensure_running()  # which the server would start otherwise, and unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_THE_SERVER)  # this thread's, which a child inherits
    try:
        with process_environment.for_fork_server(sys.path, tokenizer):  # Python 3.11 forgets the path
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def forked() -> Iterator[None]:
    """Inside, vLLM takes the engine's process from the fork server."""
    spawning = patches.START_METHOD.original()

    def forking() -> _Context:
        spawning()  # it also settles which GPUs a child of an AMD machine sees
        return _Context()

    with patches.START_METHOD.replaced(forking):
        yield


class _Process(ForkServerProcess):
    """A process with the environment of its parent at its start, as one that is spawned; a fork server has its own."""

    def start(self) -> None:
        self._variables = process_environment.snapshot()
        super().start()

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOT_FOR_THE_SERVER)
        process_environment.restore(self._variables)
        super().run()


class _Context(ForkServerContext):
    Process = _Process
