"""HF_HOME, the hub's folder: where models were baked, on the model volume, or where the operator says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gptoss_bento.config import manifest
from gptoss_bento.config.manifest import Manifest
from gptoss_bento.config.settings import Settings, is_unset

_VOLUME = Path("/runpod-volume")  # where RunPod mounts a network volume; BASE_PATH's default in worker-vllm
_BELOW_VOLUME = Path("huggingface-cache/hub")
_HUB_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def weights_folder(environ: Mapping[str, str], folder: str, origin: str) -> dict[str, tuple[str, str]]:
    """HF_HUB_CACHE for `DOWNLOAD_DIR`, so that what we fetch is where vLLM looks for it; its layout is the same.

    Raises:
        ValueError: the operator named another folder as the hub's cache. The text says what is allowed.
    """
    for name in _HUB_CACHES:
        said = environ.get(name, "")
        if not is_unset(said) and Path(said).expanduser() != Path(folder).expanduser():
            raise ValueError(f"the folder of {name}, which is {said!r}: both say where weights go; unset one")
    return {_HUB_CACHES[0]: (str(Path(folder).expanduser()), origin)}


def derived_variables(
    environ: Mapping[str, str], base_path: Path | None, folder: Path, baked: Manifest | None = None
) -> dict[str, tuple[str, str]]:
    """HF_HOME where a model was baked, or on the model volume, as worker-vllm sets it, unless the operator set it.

    Where the models were baked, the hub is switched off: what is missing there should not come from elsewhere.

    Args:
        folder: our cache folder, to which the manifest's paths are relative.

    Returns:
        The value and the origin of each variable.
    """
    if not all(is_unset(environ.get(name, "")) for name in ("HF_HOME", *_HUB_CACHES)):
        return {}
    baked_home = baked.hub_home(folder) if baked else None
    home, origin = _hub_home(base_path, baked_home, folder)
    if home is None:
        return {}
    derived = {"HF_HOME": (str(home), origin)}
    if home == baked_home:
        derived |= {
            name: ("1", f"{folder / manifest.NAME}") for name in OFFLINE_VARIABLES if is_unset(environ.get(name, ""))
        }
    return derived


def _hub_home(base_path: Path | None, baked: Path | None, folder: Path) -> tuple[Path | None, str]:
    """HF_HOME and its origin: the operator's volume, what was baked, the volume that happens to be there."""
    if base_path:
        return base_path / _BELOW_VOLUME, "BASE_PATH"
    if baked:
        return baked, str(folder / manifest.NAME)
    return (_VOLUME / _BELOW_VOLUME, f"the volume {_VOLUME}") if _VOLUME.is_dir() else (None, "")


def baking_home(settings: Settings) -> Path:
    """HF_HOME for `bake`: the operator's, else on BASE_PATH, else in our cache folder."""
    explicit = settings.process.get("HF_HOME", "")
    base_path = settings.server.base_path
    return (
        Path(explicit) if explicit else base_path / _BELOW_VOLUME if base_path else settings.cache_dir / "huggingface"
    )
