"""`gptoss-bento warm-caches`: the folder of kernels, filled, packed and unpacked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from gptoss_bento.artifacts import kernel_archive, kernel_cache
from gptoss_bento.cli.planning import console, prepare_planned
from gptoss_bento.config import process_environment
from gptoss_bento.config.settings import Settings
from gptoss_bento.engine import kernel_warming
from gptoss_bento.errors import ArtifactError
from gptoss_bento.planning.kernel_key import Entry, Kernels
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.planning.process_variables import kernel_folder


def warm(settings: Settings, planned: EnginePlan, output: Path | None) -> None:
    """Fills the folder unless it has all already, prints what it is good for, and packs it.

    Raises:
        GptOssBentoError: there is no GPU, the folder cannot be written, or the engine does not start.
    """
    if output:
        kernel_archive.check_name(output, kernel_folder(settings).value)
    plan, kernels = kernel_warming.warmable(planned)
    entry = kernels.entry or _filled(settings, plan, kernels)
    if kernels.entry:
        console.print("Nothing to do: the folder is warm for this plan.")
    console.print(_table(kernels.folder, [entry]))
    if output:
        packed = kernel_archive.pack(kernels.folder, output)
        console.print(f"{output}  {packed / 1e6:.0f} MB", soft_wrap=True, markup=False, highlight=False)


def _filled(settings: Settings, plan: EnginePlan, kernels: Kernels) -> Entry:
    found = prepare_planned(settings, plan)
    process_environment.apply(plan.variables(found.vocabulary_dir))
    try:
        return asyncio.run(kernel_warming.warm(plan, found.model, kernels, settings.server.vllm_startup_timeout))
    except OSError as error:
        raise ArtifactError(f"{kernels.folder / kernel_cache.NAME} cannot be written: {error}") from None


def unpack(file: Path, settings: Settings) -> None:
    """Fills the folder from an archive and prints what that is good for. Needs no GPU.

    Raises:
        ArtifactError: the archive or the folder is of no use.
    """
    folder = kernel_folder(settings).value
    console.print(_table(folder, kernel_archive.unpack(file, folder)))


def _table(folder: Path, entries: Iterable[Entry]) -> Table:
    """One row for each of what the folder was filled for."""
    table = Table("card", "driver", "vLLM", "torch", "arguments", "filled", "s", "MB", box=None, title=str(folder))
    for entry in entries:
        key, figures = entry.key, (f"{entry.seconds:.0f}", f"{entry.bytes / 1e6:.0f}")
        versions = (key.versions.get(name, "none") for name in ("vllm", "torch"))
        table.add_row(key.card, entry.driver, *versions, key.arguments, entry.filled, *figures)
    return table
