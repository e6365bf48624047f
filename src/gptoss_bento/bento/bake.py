"""`gptoss-bento bake`: everything that a start needs, fetched and verified ahead of it, with a manifest."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gptoss_bento.artifacts import prepare
from gptoss_bento.artifacts.model_lookup import CONFIG_FILE, architecture_check, is_folder
from gptoss_bento.config import manifest
from gptoss_bento.config.manifest import File, Manifest, Source
from gptoss_bento.config.profile import Profile
from gptoss_bento.config.settings import Settings
from gptoss_bento.errors import ArtifactError

_GIT_BLOB_LENGTH = 40  # hexadecimal digits of SHA-1; those of SHA-256 are 64


def bake(settings: Settings, profile: Profile | None, hub_home: Path) -> Manifest:
    """Fills the cache folder and the hub's cache, and writes the manifest. No GPU is needed.

    The model is what MODEL_NAME names. Without it, only what comes with this package is laid down: the Harmony
    vocabulary, and the demo model for its profile; 60 GB must be asked for.

    Args:
        hub_home: HF_HOME of this process; its library has not been imported yet.

    Raises:
        ArtifactError: something cannot be had, or a file is not what the hub says it is; that file is removed.
        ConfigurationError: the model is no GPT-OSS, or its config.json is wrong.
    """
    cache = settings.cache_dir
    vocabulary = _vocabulary(cache, settings.vocabulary_dir)
    sources = [manifest.describe(prepare.VOCABULARY_FILE, vocabulary.parent, cache)]
    if _is_demo(settings, profile):
        folder = prepare.expand_demo(cache, vocabulary)
        sources.append(manifest.describe(prepare.DEMO, folder, cache))
    else:
        sources += _from_hub(settings, cache)
    baked = Manifest(tuple(sources), manifest.relative(hub_home, cache))
    baked.write(cache)
    return baked


def _vocabulary(cache: Path, explicit: Path | None) -> Path:
    """The vocabulary inside the folder. The operator may have named that very folder, which is still empty."""
    here = cache / "vocabulary"
    found = prepare.find_vocabulary(cache, None if explicit == here else explicit)
    if found.parent == here:
        return found
    here.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(found, here))


def _is_demo(settings: Settings, profile: Profile | None) -> bool:
    own = profile.model.source if profile else None
    return (settings.model_name or own) == prepare.DEMO


def _from_hub(settings: Settings, cache: Path) -> list[Source]:
    """The model, a separate tokenizer, and the draft model, as far as they are named and on the hub."""
    speculation = settings.engine.get("speculative_config") or {}
    wanted = [
        (settings.model_name, settings.model_revision, "MODEL_NAME", False),
        (settings.tokenizer, settings.engine.get("tokenizer_revision"), "TOKENIZER_NAME", True),
        (speculation.get("model"), None, "SPECULATIVE_MODEL", False),
    ]
    sources = []
    for name, revision, variable, only_tokenizer in wanted:
        if name and not is_folder(name):
            if variable == "MODEL_NAME":
                _check_config(name, revision, settings)
            snapshot = prepare.fetch(name, revision, variable, only_tokenizer=only_tokenizer)
            sources.append(_verified(snapshot, name, revision, cache))
            _open_to_all(snapshot.parents[1])
    return sources


def _check_config(name: str, revision: str | None, settings: Settings) -> None:
    """Refuses a model that would not be served, before its weights are fetched."""
    folder = prepare.fetch(name, revision, only=(CONFIG_FILE,))
    if (config := folder / CONFIG_FILE).is_file():
        _refuse_damaged(folder, name, [File(CONFIG_FILE, config.stat().st_size, manifest.sha256(config))])
    architecture_check(settings)(folder)


def _verified(snapshot: Path, name: str, revision: str | None, cache: Path) -> Source:
    """The snapshot as a source, if each file has the hub's hash, which is the name of the file that it links to."""
    source = manifest.describe(name, snapshot, cache, revision, snapshot.name)
    _refuse_damaged(snapshot, name, source.files)
    return source


def _refuse_damaged(snapshot: Path, name: str, files: Iterable[File]) -> None:
    damaged = [file.path for file in files if not _has_hash(snapshot / file.path, file.sha256)]
    for path in damaged:
        (snapshot / path).resolve().unlink(missing_ok=True)
        (snapshot / path).unlink(missing_ok=True)
    if damaged:
        raise ArtifactError(
            f"{name}: {', '.join(damaged)} came damaged from the hub: the hash differs. It was removed; try again."
        )


def _open_to_all(folder: Path) -> None:
    """An image serves as another user than it is built; the hub's library keeps its list of files to its own user."""
    for path in (folder, *folder.rglob("*")):
        with suppress(PermissionError):  # somebody else's, on a volume that was filled before
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def _has_hash(path: Path, sha256: str) -> bool:
    expected = path.resolve().name
    return expected == (manifest.git_blob(path) if len(expected) == _GIT_BLOB_LENGTH else sha256)
