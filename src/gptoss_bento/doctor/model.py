"""What must be on disk, or come there: model and vocabulary."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

from gptoss_bento.artifacts import writable_folders
from gptoss_bento.artifacts.model_lookup import is_folder
from gptoss_bento.artifacts.prepare import VOCABULARY_FILE, check_folder, demo_folder, present_vocabulary
from gptoss_bento.concurrency import in_daemon_thread
from gptoss_bento.doctor.finding import Finding, error, note, ok, warning
from gptoss_bento.doctor.hub import Answer, Hub, ask, silent
from gptoss_bento.doctor.installation import Installed, installed_version
from gptoss_bento.errors import ArtifactError, MachineError
from gptoss_bento.planning.model_config import ModelConfig

# Without original/ and metal/. Source: the checkpoint sizes in OpenAI's GPT-OSS model card, 12.8 and 60.8 GiB.
KNOWN_BYTES = {"openai/gpt-oss-20b": 13_800_000_000, "openai/gpt-oss-120b": 65_300_000_000}
DEMO_BYTES = 120_000_000  # expanded weights, tokenizer and vocabulary, measured
_SPARE = 1.1  # a disk that is full to the brim fails elsewhere


async def check_model(
    model: str,
    revision: str | None,
    hub: Hub,
    limit_s: float,
    network: bool = True,
    free_bytes: int | None = None,
    known: ModelConfig | None = None,
) -> list[Finding]:
    """Whether the model is here, and if not, whether it can be had and has room.

    Args:
        model: a hub id or a folder.
        limit_s: seconds to wait for the hub, whatever hangs there.
        network: whether to ask the hub at all.
        free_bytes: on the disk of the hub's cache; asked for, if not given.
        known: what its config.json says.
    """
    size = f": {known.shape}" if known and known.shape else ""
    if is_folder(model):
        return [_folder(model, size)]
    try:
        if await in_daemon_thread(hub.has, model, revision):
            return [ok("model", f"{model} is in the cache {hub.cache}{size}")]
    except ValueError:  # no hub id; `ask` says so
        pass
    answer = await _answer(hub, model, revision, limit_s, network)
    missing = KNOWN_BYTES.get(model) if answer.download_bytes is None else answer.download_bytes
    return [answer.finding, *await in_daemon_thread(_disk_findings, hub, model, missing, free_bytes)]


def _folder(model: str, size: str) -> Finding:
    try:
        return ok("model", f"the folder {check_folder(Path(model).expanduser())}{size}")
    except ArtifactError as problem:
        return error(
            "model", str(problem), "Correct MODEL_NAME; a path that is right here may not be mounted.", ArtifactError
        )


async def _answer(hub: Hub, model: str, revision: str | None, limit_s: float, network: bool) -> Answer:
    if not network:
        return Answer(note("model", f"{model} is not in the cache {hub.cache}; the hub was not asked (--offline)"))
    try:
        async with asyncio.timeout(limit_s):
            return await in_daemon_thread(ask, hub, model, revision)
    except TimeoutError:
        return silent(model, limit_s)


def _disk_findings(hub: Hub, model: str, download_bytes: int | None, free_bytes: int | None) -> list[Finding]:
    missing = None if download_bytes is None else max(0, download_bytes - hub.bytes_here(model))
    return list(check_disk(hub.cache, missing, free_bytes))


def check_demo(cache: Path, free_bytes: int | None = None) -> Iterator[Finding]:
    """Whether the demo model, which comes with the code, can be expanded into our cache."""
    if (folder := demo_folder(cache)).is_dir():
        yield ok("model", f"the demo model in {folder}")
        return
    yield ok("model", "the demo model of this repository, to be expanded")
    yield from check_disk(cache, DEMO_BYTES, free_bytes)


def check_disk(folder: Path, missing_bytes: int | None, free_bytes: int | None = None) -> Iterator[Finding]:
    """Whether what is still to come fits on the disk of this folder, which need not exist yet.

    Args:
        missing_bytes: what is still to be written; None if unknown.
        free_bytes: asked for, if not given.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free if free_bytes is None else free_bytes
    elsewhere = "Free some, or name another disk in HF_HOME (models) or GPTOSS_BENTO_CACHE (demo, vocabulary)."
    if reason := writable_folders.obstacle(folder):
        yield error("disk", reason, elsewhere, MachineError)
    elif missing_bytes is None:
        yield note("disk", f"{free / 1e9:.1f} GB free at {existing}; how much the model takes is not known")
    elif free < missing_bytes:
        found = f"{free / 1e9:.1f} GB free at {existing}, {missing_bytes / 1e9:.1f} GB needed"
        yield error("disk", found, elsewhere, ArtifactError)
    elif free < _SPARE * missing_bytes:
        found = f"{free / 1e9:.1f} GB free at {existing}, hardly more than the {missing_bytes / 1e9:.1f} GB needed"
        yield warning("disk", found, elsewhere)
    else:
        yield ok("disk", f"{free / 1e9:.1f} GB free at {existing}, {missing_bytes / 1e9:.1f} GB needed")


def check_vocabulary(
    cache: Path, explicit_dir: Path | None, installed: Installed = installed_version
) -> Iterator[Finding]:
    """Whether the Harmony vocabulary is here with the published hash, or will be had when the service starts."""
    try:
        found = present_vocabulary(cache, explicit_dir)
    except (ArtifactError, OSError) as problem:
        yield error("vocabulary", str(problem), "Delete the file, or unset TIKTOKEN_ENCODINGS_BASE.", ArtifactError)
        return
    if explicit_dir is not None and (found is None or found.parent != explicit_dir):
        remedy = f"Put {VOCABULARY_FILE} there, or unset the variable."
        yield warning("vocabulary", f"TIKTOKEN_ENCODINGS_BASE={explicit_dir} has no {VOCABULARY_FILE}", remedy)
    if found is not None:
        yield ok("vocabulary", f"{found}, SHA-256 as published")
    elif installed("quicktok-v1"):
        yield note("vocabulary", "not here yet; the start downloads it, or takes it from the package quicktok-v1")
    else:
        remedy = (
            "scripts/serve or `uv pip install quicktok-v1` brings it, or name its folder in TIKTOKEN_ENCODINGS_BASE."
        )
        found_nowhere = f"{VOCABULARY_FILE} is not here, and only a download can bring it"
        yield warning("vocabulary", found_nowhere, remedy)
