"""The model on the Hugging Face hub: asked for what it weighs, without downloading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gptoss_bento.artifacts.prepare import IGNORED_FILES
from gptoss_bento.doctor.finding import Finding, error, ok, warning, without
from gptoss_bento.errors import ArtifactError


class Hub(Protocol):
    """What the doctor asks of the hub and of its cache on this machine."""

    offline: bool
    cache: Path
    token: str | None

    def has(self, model: str, revision: str | None, /) -> bool:
        """Whether the cache holds the whole model. Asks no network."""

    def bytes_here(self, model: str, /) -> int:
        """How much of the model an interrupted download has left in the cache."""

    def files(self, model: str, revision: str | None, /) -> Mapping[str, int]:
        """The model's files with their bytes, if they may be downloaded. Raises what the hub's library raises."""


class HuggingFaceHub:
    """The real one, with the token and the settings that huggingface_hub finds in the environment.

    Args:
        endpoint, token, cache: for tests; None means what the library finds.
        timeout_s: seconds for each phase of a request.
    """

    def __init__(
        self, timeout_s: float, endpoint: str | None = None, token: str | None = None, cache: Path | None = None
    ) -> None:
        import huggingface_hub
        from huggingface_hub import constants

        self._timeout_s = timeout_s
        self.token = token or huggingface_hub.get_token()
        self._api = huggingface_hub.HfApi(endpoint=endpoint, token=self.token or False)
        self.cache = cache or Path(constants.HF_HUB_CACHE)
        self.offline = constants.is_offline_mode()

    def has(self, model: str, revision: str | None) -> bool:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            snapshot_download(
                model, revision=revision, ignore_patterns=IGNORED_FILES, local_files_only=True, cache_dir=self.cache
            )
        except LocalEntryNotFoundError:
            return False
        return True

    def bytes_here(self, model: str) -> int:
        from huggingface_hub.file_download import repo_folder_name

        blobs = self.cache / repo_folder_name(repo_id=model, repo_type="model") / "blobs"
        return sum(path.stat().st_size for path in blobs.glob("*"))

    def files(self, model: str, revision: str | None) -> Mapping[str, int]:
        info = self._api.model_info(model, revision=revision, timeout=self._timeout_s, files_metadata=True)
        if info.gated:  # whose description is public, but not its files
            self._api.auth_check(model)
        return {item.rfilename: item.size or 0 for item in info.siblings or []}


@dataclass(frozen=True)
class Answer:
    """What came of asking. `download_bytes` is None where the hub did not say."""

    finding: Finding
    download_bytes: int | None = None


def ask(hub: Hub, model: str, revision: str | None) -> Answer:
    """Whether the model can be downloaded from here, and how much that is."""
    from huggingface_hub.utils._paths import filter_repo_objects

    if hub.offline:
        remedy = "Unset it (TRANSFORMERS_OFFLINE as well), fill the cache elsewhere, or set MODEL_NAME to a folder."
        return Answer(_refused(f"HF_HUB_OFFLINE is set, and the cache {hub.cache} does not hold {model}", remedy))
    try:
        files = hub.files(model, revision)
    except Exception as reason:  # the hub's own errors, those of its HTTP library, and the socket's
        failure = _failure(reason, model, revision, hub.token is not None)
        return Answer(without(filter(None, [hub.token]), failure))
    wanted = filter_repo_objects(files, ignore_patterns=IGNORED_FILES)
    total = sum(files[name] for name in wanted)
    return Answer(ok("model", f"{model} is on the hub, {total / 1e9:.1f} GB to download"), total)


def silent(model: str, limit_s: float) -> Answer:
    """The hub took longer than we wait, which may be too little for a slow line."""
    remedy = "Ask longer with --timeout 10. If it does not answer either, check proxy and firewall."
    return Answer(warning("model", f"the hub did not answer for {model} within {limit_s:g} s", remedy))


def _failure(reason: Exception, model: str, revision: str | None, has_token: bool) -> Finding:
    """Distinguishes the hub's errors that resemble each other; a subclass comes before its base."""
    from huggingface_hub import errors

    match reason:
        case errors.GatedRepoError():
            return _gated(model, has_token)
        case errors.RevisionNotFoundError():
            return _refused(f"the hub has no revision {revision!r} of {model}", "Correct or unset MODEL_REVISION.")
        case errors.RepositoryNotFoundError():
            return _unknown(model, has_token)
        case errors.HFValidationError():
            remedy = "MODEL_NAME is owner/name, a folder that starts with / or ./, or demo."
            return _refused(f"{model!r} is no name of a model on the hub", remedy)
        case errors.HfHubHTTPError():
            return _status(reason.response.status_code, model)
        case _:
            return _no_network(reason)


def _gated(model: str, has_token: bool) -> Finding:
    """Not to be had without the consent of its owners."""
    if not has_token:
        remedy = "Accept the model's terms on its page, then set HF_TOKEN."
        return _refused(f"{model} is gated, and no HF_TOKEN is set", remedy)
    remedy = "Accept the terms on the model's page with the account that the token belongs to."
    return _refused(f"{model} is gated, and HF_TOKEN has no access to it", remedy)


def _unknown(model: str, has_token: bool) -> Finding:
    """The hub hides private models: to strangers they do not exist."""
    if not has_token:
        remedy = "Check the spelling of MODEL_NAME; for a private model set HF_TOKEN."
        return _refused(f"the hub has no public model {model}, and no HF_TOKEN is set", remedy)
    remedy = "Check the spelling of MODEL_NAME, and that the token may read the model."
    return _refused(f"the hub has no model {model}, or HF_TOKEN may not see it", remedy)


def _status(status: int, model: str) -> Finding:
    if status == 401:
        remedy = "Make a new token on the hub, or unset HF_TOKEN: GPT-OSS is public."
        return _refused("the hub does not accept HF_TOKEN: it is wrong, expired or revoked", remedy)
    if status == 403:
        return _refused(f"HF_TOKEN may not read {model}", "Give the token the right to read it, or unset HF_TOKEN.")
    if status == 429:
        return warning("model", "the hub answers: too many requests", "Wait, or set HF_TOKEN, which allows more.")
    return _refused(f"the hub answers with status {status}", "Try again later; its state is on its status page.")


def _no_network(reason: Exception) -> Finding:
    words = str(reason).strip().split("\n")[0] or type(reason).__name__
    remedy = "Check network, proxy (HTTPS_PROXY) and HF_ENDPOINT, or set MODEL_NAME to a folder that holds the model."
    return _refused(f"the hub cannot be reached: {words}", remedy)


def _refused(found: str, remedy: str) -> Finding:
    return error("model", found, remedy, ArtifactError)
