"""What must be on disk before the engine starts: weights, tokenizer, Harmony vocabulary. Fetched, then verified."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import logging
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from gptoss_bento.artifacts import writable_folders
from gptoss_bento.artifacts.cache_cleanup import cache_folder, remove_incomplete_downloads
from gptoss_bento.artifacts.download_progress import Report, download_progress
from gptoss_bento.artifacts.model_lookup import CONFIG_FILE, architecture_check, is_folder
from gptoss_bento.artifacts.resumable_downloads import resumed_downloads
from gptoss_bento.config.settings import Settings
from gptoss_bento.demo import checkpoint
from gptoss_bento.errors import ArtifactError, MachineError
from gptoss_bento.planning.plan import EnginePlan

logger = logging.getLogger(__name__)

VOCABULARY_FILE = "o200k_base.tiktoken"
# Both as published in tiktoken's openai_public.py.
VOCABULARY_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
VOCABULARY_URL = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
_DOWNLOAD_TIMEOUT = httpx.Timeout(30.0, connect=5.0)  # s

DEMO = "demo"
# The hub folders original/ and metal/ of gpt-oss hold the same weights again in other formats.
IGNORED_FILES = ["original/**", "metal/**"]
_WEIGHTS = ["*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "*.h5", "*.msgpack"]


@dataclass(frozen=True)
class Artifacts:
    """`model` is what vLLM gets as --model; `vocabulary_dir` goes into TIKTOKEN_ENCODINGS_BASE."""

    model: str
    vocabulary_dir: Path


def prepare_planned(settings: Settings, plan: EnginePlan, report: Report | None = None) -> Artifacts:
    """`prepare` for a plan. It raises the same, and ConfigurationError for a model that the plan would have refused."""
    return prepare(
        plan.model.value,
        plan.revision.value,
        settings.cache_dir,
        settings.vocabulary_dir,
        plan.draft,
        tokenizer=plan.tokenizer,
        bento_models=settings.bento_models,
        check=None if plan.config.architecture else architecture_check(settings),
        report=report,
    )


def prepare(
    model: str,
    revision: str | None,
    cache: Path,
    vocabulary_dir: Path | None,
    draft: str | None = None,
    *,
    tokenizer: tuple[str, str | None] | None = None,
    bento_models: Path | None = None,
    check: Callable[[Path], None] | None = None,
    report: Report | None = None,
) -> Artifacts:
    """Makes everything available, fetching what is missing.

    Args:
        model: a hub id, a folder, or "demo".
        cache: where vocabulary and demo model are kept.
        vocabulary_dir: the folder that TIKTOKEN_ENCODINGS_BASE names, if any.
        draft: the model that speculates, a hub id or a folder; vLLM would fetch it itself, silently and late.
        tokenizer: a separate one, and its revision; the same holds for it.
        bento_models: where BentoML keeps the models that a Bento names (BENTOML_HF_CACHE_DIR).
        check: gets the folder with the model's config.json before anything else of it is fetched, and may raise.
        report: is called with the progress of a download.

    Raises:
        ArtifactError: something cannot be had; the message says what would help.
    """
    vocabulary = find_vocabulary(cache, vocabulary_dir)
    if draft and not is_folder(draft):
        fetch(draft, None, "SPECULATIVE_MODEL", report)
    if tokenizer and not is_folder(tokenizer[0]):
        fetch(*tokenizer, "TOKENIZER", report, only_tokenizer=True)
    carried = in_bento(model, bento_models) if bento_models and not revision else None
    found = str(carried) if carried else _find_model(model, revision, cache, vocabulary, check, report)
    return Artifacts(found, vocabulary.parent)


def in_bento(model: str, bento_models: Path) -> Path | None:
    """The folder of a model that the Bento names, in the hub's layout; it holds one commit of it, which was pinned.

    BentoML writes the model's id in small letters (HuggingFaceModel.to_info), and the hub ignores case.
    """
    name = cache_folder(model).lower()
    folders = (folder for folder in bento_models.glob("models--*") if folder.name.lower() == name)
    return next((snapshot for folder in folders for snapshot in sorted(folder.glob("snapshots/*/"))), None)


def find_vocabulary(cache: Path, explicit_dir: Path | None = None) -> Path:
    """The verified o200k_base.tiktoken, from the first source that has it.

    Sources: the folder the operator named, our cache, OpenAI's download, the PyPI package quicktok-v1.

    Raises:
        ArtifactError: the operator's file is damaged, or no source has it.
    """
    found = present_vocabulary(cache, explicit_dir)
    if explicit_dir is not None and (found is None or found.parent != explicit_dir):
        logger.warning("TIKTOKEN_ENCODINGS_BASE=%s has no %s; trying other sources", explicit_dir, VOCABULARY_FILE)
    if found is not None:
        return found
    cached = _cached_vocabulary(cache)
    failures = []
    for name, source in (("download", _from_download), ("package quicktok-v1", _from_package)):
        try:
            return _store(source(), cached)
        except (OSError, ArtifactError, httpx.HTTPError, struct.error) as error:
            failures.append(f"{name}: {error}")
    raise ArtifactError(
        f"The Harmony vocabulary {VOCABULARY_FILE} cannot be had ({'; '.join(failures)}). Put the file into a folder "
        "and name the folder in TIKTOKEN_ENCODINGS_BASE, or install the package quicktok-v1."
    )


def present_vocabulary(cache: Path, explicit_dir: Path | None = None) -> Path | None:
    """The path of the verified file, if it is on disk: in the operator's folder, else in our cache. Fetches nothing.

    Raises:
        ArtifactError: the operator's file is damaged.
    """
    if explicit_dir is not None and (explicit := explicit_dir / VOCABULARY_FILE).is_file():
        return _verified(explicit)
    cached = _cached_vocabulary(cache)
    return cached if _is_vocabulary(cached) else None


def _cached_vocabulary(cache: Path) -> Path:
    return cache / "vocabulary" / VOCABULARY_FILE


def _is_vocabulary(path: Path) -> bool:
    try:
        return _sha256(path.read_bytes()) == VOCABULARY_SHA256
    except OSError:
        return False


def _verified(path: Path) -> Path:
    if (found := _sha256(path.read_bytes())) != VOCABULARY_SHA256:
        raise ArtifactError(
            f"{path} is damaged: SHA-256 {found}, expected {VOCABULARY_SHA256}. Replace it or unset "
            "TIKTOKEN_ENCODINGS_BASE."
        )
    return path


def _from_download() -> bytes:
    logger.info("downloading the Harmony vocabulary")
    response = httpx.get(VOCABULARY_URL, timeout=_DOWNLOAD_TIMEOUT, follow_redirects=True)
    return response.raise_for_status().content


def _from_package() -> bytes:
    spec = importlib.util.find_spec("quicktok")
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError("not installed")
    ranks = Path(spec.submodule_search_locations[0]) / "data" / "o200k.vocab"
    lines = (base64.b64encode(token) + b" %d\n" % rank for rank, token in sorted(_read_ranks(ranks.read_bytes())))
    return b"".join(lines)


def _read_ranks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """quicktok's format: a uint32 count, then per token a uint16 length, the bytes, a uint32 rank; little-endian."""
    (count,) = struct.unpack_from("<I", data)
    offset = 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, offset)
        token = data[offset + 2 : offset + 2 + length]
        (rank,) = struct.unpack_from("<I", data, offset + 2 + length)
        offset += 6 + length
        yield rank, token


def _store(content: bytes, path: Path) -> Path:
    """Writes the file in one step, so that a killed process leaves no half of it."""
    if (found := _sha256(content)) != VOCABULARY_SHA256:
        raise ArtifactError(f"wrong content, SHA-256 {found}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        unfinished.write_bytes(content)
        return unfinished.replace(path)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _find_model(
    model: str,
    revision: str | None,
    cache: Path,
    vocabulary: Path,
    check: Callable[[Path], None] | None,
    report: Report | None,
) -> str:
    if model == DEMO:
        return str(expand_demo(cache, vocabulary))
    if is_folder(model):
        return str(check_folder(Path(model).expanduser()))
    if check:
        check(fetch(model, revision, report=report, only=(CONFIG_FILE,)))
    fetch(model, revision, report=report)
    return model


def expand_demo(cache: Path, vocabulary: Path) -> Path:
    """The folder of the demo model, made if it is not there yet."""
    target = demo_folder(cache)
    if not target.is_dir():
        logger.info("expanding the demo model into %s", target)
        checkpoint.expand(target, vocabulary)
    return target


def demo_folder(cache: Path) -> Path:
    """Where the demo model is, once it is expanded."""
    return cache / f"demo-{_demo_fingerprint()}"


def _demo_fingerprint() -> str:
    """Changes with the weights and with the code that expands them, so that an older folder is not taken for it."""
    return _sha256(checkpoint.WEIGHTS.read_bytes() + Path(checkpoint.__file__).read_bytes())[:12]


def check_folder(folder: Path) -> Path:
    """The folder, if it looks like a model.

    Raises:
        ArtifactError: there is no such folder, or it holds no model.
    """
    if not folder.is_dir():
        raise ArtifactError(f"MODEL_NAME is {str(folder)!r}, but there is no such folder.")
    if not (folder / CONFIG_FILE).is_file():
        raise ArtifactError(
            f"The folder {str(folder)!r} holds no {CONFIG_FILE}: it is not a model in Hugging Face format."
        )
    return folder


def fetch(
    model: str,
    revision: str | None,
    variable: str = "MODEL_NAME",
    report: Report | None = None,
    *,
    only_tokenizer: bool = False,
    only: Sequence[str] | None = None,
) -> Path:
    """Downloads (or finds in the hub's cache) everything vLLM needs, and returns the folder of that snapshot.

    A download that the network or a kill interrupted is resumed (artifacts/resumable_downloads.py); in Xet storage only
    whole files survive a kill.

    Args:
        variable: what the operator set to name the model, for the error.
        report: is called with the progress.
        only_tokenizer: leave the weights out.
        only: fetch these files alone.

    Raises:
        ArtifactError: the hub does not have it, or cannot be reached, or a file came damaged.
        MachineError: its cache may not be written by this user.
    """
    from huggingface_hub import constants, snapshot_download

    hub_cache = Path(constants.HF_HUB_CACHE)
    remove_incomplete_downloads(model, hub_cache)
    ignored = [*IGNORED_FILES, *(_WEIGHTS if only_tokenizer else ())]
    with _explained(model, variable):
        with resumed_downloads():
            snapshot = snapshot_download(
                model,
                revision=revision,
                allow_patterns=list(only) if only else None,
                ignore_patterns=ignored,
                tqdm_class=download_progress(model, report),
            )
        if not only:
            remove_incomplete_downloads(model, hub_cache, kept=True)
        return Path(snapshot)


@contextmanager
def _explained(model: str, variable: str) -> Iterator[None]:
    """Names the model, and what the operator can do, in whatever goes wrong in the block."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"{model}: {error}") from None
    except HFValidationError as error:
        raise ArtifactError(f"{variable} {model!r} is neither a folder nor a hub id: {_sentence(error)}") from None
    except PermissionError as error:
        raise MachineError(writable_folders.refusal(error)) from None
    except Exception as error:  # the hub's own errors, those of two HTTP libraries, and the disk's
        raise ArtifactError(
            f"The model {model!r} cannot be fetched from the hub ({_sentence(error)}). {_advice(variable)}"
        ) from None


def _advice(variable: str) -> str:
    from huggingface_hub import constants

    elsewhere = f"set {variable} to a folder that holds it"
    if constants.is_offline_mode():
        return f"The hub is switched off (HF_HUB_OFFLINE); switch it on, or {elsewhere}."
    return f"Check the name, HF_TOKEN and the network, or {elsewhere}."


def _sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
