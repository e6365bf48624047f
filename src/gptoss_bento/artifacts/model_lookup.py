"""Where a model's config.json is: its folder, the Bento, the hub's cache, the hub. Nothing else of the model is read.

What is in the hub's cache counts, without asking whether the hub has a newer commit. What comes from the hub is not put
into the cache: there it would look like a model that was fetched (snapshot_download takes any snapshot for whole).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gptoss_bento.concurrency import in_daemon_thread
from gptoss_bento.config.settings import Settings
from gptoss_bento.errors import ArtifactError
from gptoss_bento.planning.model_config import ModelConfig, is_path, name_of_folder, named, parse_config, unknown_config
from gptoss_bento.planning.model_fit import check_architecture
from gptoss_bento.planning.profile_choice import Find

PLAN_LIMIT_S = 3.0
"""How long a plan waits for the hub. A worker, which fetches the model next anyway, waits longer."""

START_LIMIT_S = 30.0

NO_HUB = -1.0
"""As a limit: neither the hub nor its cache is asked, and its library is not loaded."""

CONFIG_FILE = "config.json"
_LARGEST = 10_000_000  # bytes; they have some kB


def finder(settings: Settings, limit_s: float) -> Find:
    """Finds models as these settings have them.

    Args:
        limit_s: seconds to wait for the hub; 0: only its cache is asked; NO_HUB: nothing of it.
    """
    found = settings.engine.get("hf_overrides")
    overrides = found if isinstance(found, Mapping) else {}

    def find(model: str, revision: str | None) -> ModelConfig:
        if is_folder(model):
            return of_folder(Path(model), overrides)
        return _of_hub(model, revision, settings.bento_models, limit_s, overrides)

    return find


def architecture_check(settings: Settings) -> Callable[[Path], None]:
    """Refuses the model in a folder as the plan would have, for one whose config.json the plan did not know.

    What it returns raises ConfigurationError and ArtifactError.
    """
    find = finder(settings, NO_HUB)

    def check(folder: Path) -> None:
        config = find(str(folder), None)
        if not config.architecture:
            raise ArtifactError(f"{config.unknown}: it is not a model in Hugging Face format.")
        check_architecture(config, settings)

    return check


def is_folder(model: str) -> bool:
    """Whether MODEL_NAME names a folder rather than a model on the hub."""
    return is_path(model) or Path(model).is_dir()


def of_folder(folder: Path, overrides: Mapping[str, Any] | None = None) -> ModelConfig:
    """What the config.json in this folder says. Without one nothing is known: the folder may be on another machine.

    Raises:
        ArtifactError: it cannot be read.
        ConfigurationError: it is no config.json of a model.
    """
    place = folder.expanduser().resolve()
    file = place / CONFIG_FILE
    if not file.is_file():
        reason = f"holds no {CONFIG_FILE}" if place.is_dir() else "is not there"
        return unknown_config(str(place), f"the folder {folder} {reason}")
    return parse_config(_read(file), str(file), f"{CONFIG_FILE} of {folder}", name_of_folder(place), overrides)


def _read(file: Path) -> str:
    """The text. What is no UTF-8 is no JSON either, which the parser says."""
    try:
        if file.stat().st_size > _LARGEST:
            raise ArtifactError(f"{file} is no model's config: it has {file.stat().st_size:,} bytes.")
        return file.read_text(errors="replace")
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error.strerror or error}") from None


def _of_hub(
    model: str, revision: str | None, bento_models: Path | None, limit_s: float, overrides: Mapping[str, Any]
) -> ModelConfig:
    try:
        file, text = _in_reach(model, revision, bento_models, limit_s)
    except _UnknownError as reason:
        return unknown_config(model, f"its {CONFIG_FILE} is not known: {reason}")
    return parse_config(text, file, f"{CONFIG_FILE} of {model}", named(model), overrides)


class _UnknownError(Exception):
    """Why there is no config.json in reach."""


def _in_reach(model: str, revision: str | None, bento_models: Path | None, limit_s: float) -> tuple[str, str]:
    """(the file, for errors; its text)."""
    from gptoss_bento.artifacts.prepare import in_bento

    carried = in_bento(model, bento_models) if bento_models and not revision else None
    if carried and (carried / CONFIG_FILE).is_file():
        return str(carried / CONFIG_FILE), _read(carried / CONFIG_FILE)
    if limit_s == NO_HUB:
        raise _UnknownError("the hub's cache was not read")
    if cached := _in_cache(model, revision):
        return str(cached), _read(cached)
    return f"{CONFIG_FILE} of {model} on the hub", _from_hub(model, revision, limit_s)


def _in_cache(model: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, CONFIG_FILE, revision=revision)
    except HFValidationError as error:
        raise _UnknownError(_sentence(error)) from None
    return Path(found) if isinstance(found, str) else None


def _from_hub(model: str, revision: str | None, limit_s: float) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import RemoteEntryNotFoundError

    if constants.is_offline_mode():
        raise _UnknownError(f"HF_HUB_OFFLINE is set, and the cache {constants.HF_HUB_CACHE} does not hold it")
    if limit_s <= 0:
        raise _UnknownError("the hub was not asked")
    try:
        return asyncio.run(_within(limit_s, _download, model, revision, limit_s))
    except TimeoutError:
        raise _UnknownError(f"the hub did not answer within {limit_s:g} s") from None
    except RemoteEntryNotFoundError:
        raise ArtifactError(
            f"The model {model!r} on the hub holds no {CONFIG_FILE}: it is not a model in Hugging Face format."
        ) from None
    except Exception as error:  # the hub's own errors, those of its HTTP library, and the socket's
        raise _UnknownError(f"the request to the hub failed: {_sentence(error)}") from None


async def _within(limit_s: float, work: Callable[..., str], *arguments: object) -> str:
    async with asyncio.timeout(limit_s):
        return await in_daemon_thread(work, *arguments)


def _download(model: str, revision: str | None, limit_s: float) -> str:
    """One request with the hub's session, token and endpoint. `hf_hub_download` tries for half a minute."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(model, CONFIG_FILE, revision=revision)
    response = get_session().get(url, headers=build_hf_headers(), timeout=limit_s, follow_redirects=True)
    hf_raise_for_status(response)
    return str(response.text)


def _sentence(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
