"""The folder of compiled kernels: what it was filled for, whether it can be written, and how it travels.

A manifest in it lists its fillings: the first worker writes it when the service is ready, as `gptoss-bento
warm-caches` does. A folder that cannot be written would end a start: Triton makes a folder for each kernel before it
looks into it (runtime/cache.py), vLLM one for what torch.compile made (compilation/decorators.py), and neither catches
the error; only vLLM's start plan and its notes on models do without (vLLM 0.32.0, Triton 3.7.1). So the service then
works on a copy.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from gptoss_bento.artifacts import compilers
from gptoss_bento.config import process_environment
from gptoss_bento.errors import ArtifactError, MachineError
from gptoss_bento.hardware import probe
from gptoss_bento.hardware.probe import Driver
from gptoss_bento.planning.kernel_key import (
    KERNEL_CACHES,
    Entry,
    Kernels,
    as_content,
    deciding,
    entries_from,
    judged,
    key_of,
)
from gptoss_bento.planning.plan import EnginePlan, with_kernels

logger = logging.getLogger(__name__)

NAME = "kernels.json"
"""The manifest."""

_LIBRARIES = {"vllm": "vllm", "torch": "torch", "triton": "triton", "flashinfer": "flashinfer-python"}
_GROUPS = "*/__grp__*.json"  # of Triton: the paths of the files of one kernel
_KEPT = 50  # fillings; older ones are dropped from the manifest, their kernels stay


def installed_versions() -> dict[str, str]:
    """Of the libraries that compile, without importing them, and of Python, whose code torch.compile keeps."""
    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name, distribution in _LIBRARIES.items():
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(distribution)
    return versions


@dataclass(frozen=True)
class Surroundings:
    """Where the facts come from; tests replace them. `variables` of None: those of this process."""

    variables: Mapping[str, str] | None = None
    driver: Callable[[], Driver | None] = probe.nvidia_driver
    versions: Callable[[], Mapping[str, str]] = installed_versions
    can_write: Callable[[Path], bool] = lambda folder: os.access(folder, os.W_OK | os.X_OK)
    tools: compilers.Tools = compilers.HERE

    @property
    def process(self) -> Mapping[str, str]:
        return process_environment.snapshot() if self.variables is None else self.variables


HERE = Surroundings()


def settled(plan: EnginePlan, surroundings: Surroundings = HERE) -> EnginePlan:
    """The plan with what its folder of kernels holds and what missing compilers change, if it is for this machine."""
    if plan.kernel_folder is None or plan.hardware.origin != "probed":
        return plan
    folder = plan.kernel_folder.value
    plan = compilers.without_all_reduce(plan, surroundings.process, surroundings.tools)
    lacks = (f"{lack}. {lack.remedy}" for lack in compilers.lacks(plan, surroundings.process, surroundings.tools))
    plan = replace(plan, warnings=(*plan.warnings, *lacks))
    return with_kernels(plan, inspect(plan, folder, surroundings))


def inspect(plan: EnginePlan, folder: Path, surroundings: Surroundings = HERE) -> Kernels:
    """What a folder holds for a plan. Writes nothing."""
    facts = deciding(plan, surroundings.process)
    key = key_of(plan, surroundings.process, surroundings.versions())
    entry, reason = judged(read(folder), key, bool(plan.warmup.value))
    unwritable = unwritable_reason(folder, surroundings.can_write)
    return Kernels(
        folder=folder,
        key=key,
        driver=_driver_version(surroundings.driver),
        entry=entry,
        reason=reason,
        unwritable=unwritable,
        replacement=process_environment.temporary_kernel_folder() if unwritable else None,
        problems=tuple(_problems(plan, folder, surroundings.can_write)),
        said=facts,
    )


def _driver_version(ask: Callable[[], Driver | None]) -> str:
    try:
        driver = ask()
    except MachineError:  # what asks for the hardware says so
        return ""
    return driver.version if driver else ""


def _problems(plan: EnginePlan, folder: Path, can_write: Callable[[Path], bool]) -> Iterator[str]:
    """Of the folders that a variable names apart: they are used as they are."""
    for variable, name in KERNEL_CACHES.items():
        planned = Path(str(plan.environment[variable].value))
        if planned != folder / name and (reason := unwritable_reason(planned, can_write)):
            yield f"{variable}: {reason}: whatever has to be compiled there ends the start"


def unwritable_reason(folder: Path, can_write: Callable[[Path], bool] = HERE.can_write) -> str:
    """Why nothing can be written below a folder, which need not exist yet; empty if it can."""
    folders = (folder, *(folder / name for name in KERNEL_CACHES.values()))
    for path in (nearest(folder), *filter(_exists, folders)):
        if not path.is_dir():
            return f"{path} is not a folder"
        if not can_write(path):
            return f"{path} cannot be written by uid {os.geteuid()}"
    return ""


def nearest(folder: Path) -> Path:
    """The folder, or the one above it that exists."""
    return next(place for place in (folder, *folder.parents) if _exists(place))


def _exists(place: Path) -> bool:
    """False, too, where this user may not read, which Path.exists() raises for."""
    return os.path.exists(place)  # noqa: PTH110


# The manifest


def read(folder: Path) -> tuple[Entry, ...]:
    """What the folder was filled for, the last filling last; nothing if the manifest cannot be read."""
    try:
        return entries_from(json.loads((folder / NAME).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is not used: %s", folder / NAME, error)
        return ()


def write(folder: Path, entries: tuple[Entry, ...]) -> None:
    """Writes the manifest in one step."""
    _rewrite(folder / NAME, json.dumps(as_content(entries[-_KEPT:]), indent=1) + "\n")


def filled(kernels: Kernels, seconds: float, warmup: bool) -> Entry:
    """Notes in the manifest that a start has filled the folder.

    Args:
        seconds: how long the start took.
        warmup: whether it sent warm-up requests.

    Raises:
        OSError: the manifest cannot be written.
    """
    kernels.folder.mkdir(parents=True, exist_ok=True)
    entry = Entry(
        key=kernels.key,
        driver=kernels.driver,
        filled=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        bytes=size(kernels.folder),
        warmup=warmup,
        said=kernels.said,
    )
    older = [each for each in read(kernels.folder) if each.key != entry.key]
    write(kernels.folder, (*older, entry))
    return entry


def note_filled(kernels: Kernels, seconds: float, warmup: bool) -> None:
    """The same for a service, for which nothing of it matters: a folder that was warm or cannot be written is left."""
    if kernels.is_warm or kernels.unwritable:
        return
    try:
        entry = filled(kernels, seconds, warmup)
    except OSError as error:
        logger.warning("the next plan will not know that %s is warm: %s", kernels.folder, error)
    else:
        megabytes = entry.bytes / 1e6
        logger.info("%s is warm now (%.0f MB) for arguments %s", kernels.folder, megabytes, entry.key.arguments)


def size(folder: Path) -> int:
    """Bytes of all files below it. What goes away meanwhile does not count."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


# Another folder


def replace_unwritable(kernels: Kernels) -> None:
    """Makes the folder that replaces one that cannot be written, with a copy of what can be read of it."""
    if kernels.replacement is None or kernels.replacement.exists():
        return
    kernels.replacement.mkdir(mode=0o700)
    try:
        if _exists(kernels.folder):
            shutil.copytree(kernels.folder, kernels.replacement, dirs_exist_ok=True)
    except shutil.Error as error:
        logger.warning("%d files of %s could not be copied", len(error.args[0]), kernels.folder)
    except OSError as error:  # of the folder itself, into which this user may not look
        logger.warning("nothing of %s could be copied: %s", kernels.folder, error)
    _make_writable(kernels.replacement)
    relocate(kernels.replacement)


def _make_writable(folder: Path) -> None:
    """A copy has the modes of the original, which may be read-only."""
    for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        each.chmod(each.stat().st_mode | 0o700)


def relocate(folder: Path) -> int:
    """Corrects the paths of the kernels that Triton wrote down. Returns the number of kernels.

    Raises:
        OSError: the folder cannot be written.
    """
    groups = [path for path in (folder / KERNEL_CACHES["TRITON_CACHE_DIR"]).glob(_GROUPS) if _is_moved(path)]
    for path in groups:
        content = json.loads(path.read_text())
        children = {name: str(path.parent / Path(child).name) for name, child in content["child_paths"].items()}
        _rewrite(path, json.dumps({**content, "child_paths": children}))
    return len(groups)


def _rewrite(path: Path, text: str) -> None:
    """In one step, also of a file that is read-only: Triton would end a start because of half a file."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


def _is_moved(group: Path) -> bool:
    try:
        children = json.loads(group.read_text())["child_paths"].values()
        return any(Path(child).parent != group.parent for child in children)
    except (ValueError, KeyError, AttributeError, TypeError):  # Triton compiles such a kernel again
        return False


def moved(folder: Path) -> tuple[Entry, ...]:
    """The fillings of a folder that was moved or copied; their kernels are found in this folder from now on.

    Raises:
        ArtifactError: the folder says nothing about its fillings, or cannot be written.
    """
    if not (entries := read(folder)):
        raise ArtifactError(f"{folder} has no {NAME} that can be read; `gptoss-bento warm-caches` writes one.")
    place = str(folder / KERNEL_CACHES["TRITON_CACHE_DIR"])
    here = tuple(replace(entry, key=replace(entry.key, folder=place)) for entry in entries)
    try:
        relocate(folder)
        write(folder, here)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written: {error}") from None
    return here
