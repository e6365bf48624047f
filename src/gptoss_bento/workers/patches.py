"""Whatever of circus and prometheus_client is replaced or used though it is private."""

from __future__ import annotations

from gptoss_bento.patching import Patch, PrivateUse

_METRICS = "tests/contract/test_metric_files.py::test_counts_are_written_a_moment_later_and_at_the_end"

QUIT = Patch(
    "circus.sighandler:SysHandler.quit",
    "A SIGTERM is lost while the supervisor restarts a worker: circus refuses one command during another.",
    "None: BentoML makes the arbiter and its handler itself.",
    "tests/contract/test_circus.py::test_sigterm_is_still_lost_while_circus_manages_its_workers",
)
INCREMENT = Patch(
    "prometheus_client.values:ValueClass.inc",
    "Each count is written into a file, vLLM's for each token included: a fifth of an API server's CPU time.",
    "None: PROMETHEUS_MULTIPROC_DIR turns the files on, and nothing says how often they are written.",
    _METRICS,
)
SET = Patch("prometheus_client.values:ValueClass.set", "The same for gauges.", INCREMENT.instead, _METRICS)

PATCHES: tuple[Patch, ...] = (QUIT, INCREMENT, SET)

PRIVATE_USES: tuple[PrivateUse, ...] = (
    PrivateUse(
        "circus.arbiter:Arbiter._exclusive_running_command",
        "read",
        "Whether a command runs, so that the SIGTERM waits for its end; with it `_stopping`.",
        "tests/contract/test_circus.py::test_arbiter_does_one_at_a_time",
    ),
    PrivateUse(
        "prometheus_client.values:MultiProcessValue",
        "read",
        "The lock in its closure, and of a value `_value`, `_timestamp`, `_key` and `_file.write_value`.",
        _METRICS,
    ),
)
