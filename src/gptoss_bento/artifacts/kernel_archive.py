"""A folder of compiled kernels in one file, for an image or a volume. It holds code: unpack only what you trust."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePath
from typing import Literal

from gptoss_bento.artifacts import kernel_cache
from gptoss_bento.errors import ArtifactError, ConfigurationError
from gptoss_bento.planning.kernel_key import Entry

_MODES: dict[str, Literal["w:gz", "w"]] = {".tar.gz": "w:gz", ".tgz": "w:gz", ".tar": "w"}


def check_name(file: Path, folder: Path) -> None:
    """Refuses a file that cannot become the archive of this folder.

    Raises:
        ConfigurationError: its ending names no known format, or the file would be inside the folder itself.
    """
    _mode(file)
    if file.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError(f"{file}: the archive cannot be inside {folder}, which it will hold.")


def _mode(file: Path) -> Literal["w:gz", "w"]:
    for ending, mode in _MODES.items():
        if file.name.endswith(ending):
            return mode
    raise ConfigurationError(f"{file}: the archive's name must end in {', '.join(_MODES)}.")


def pack(folder: Path, file: Path) -> int:
    """Writes the folder's content into a file, in one step. Returns the file's size in bytes.

    Raises:
        ConfigurationError: the file's name has no known ending, or the file would be inside the folder itself.
        ArtifactError: it cannot be written.
    """
    check_name(file, folder)
    mode = _mode(file)
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        # Times are kept with their fractions: ninja, which builds FlashInfer's kernels, compares them.
        with tarfile.open(unfinished, mode, format=tarfile.PAX_FORMAT) as archive:
            archive.add(folder, ".", filter=_without_owner)
        unfinished.replace(file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ArtifactError(f"{file} cannot be written: {error}") from None
    return file.stat().st_size


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The user who unpacks it owns the files."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def unpack(file: Path, folder: Path) -> tuple[Entry, ...]:
    """Adds an archive's content to a folder, at whose path the kernels are found from then on. Returns its fillings.

    Raises:
        ArtifactError: it cannot be read, is no archive of kernels, or holds paths that lead out of the folder.
    """
    kept = kernel_cache.read(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _extract(file, folder)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ArtifactError(f"{file} cannot be unpacked into {folder}: {error}") from None
    came = kernel_cache.moved(folder)
    keys = [entry.key for entry in came]
    kernel_cache.write(folder, (*(entry for entry in kept if entry.key not in keys), *came))
    return came


def _extract(file: Path, folder: Path) -> None:
    """The manifest comes last, or it would speak of kernels that a full disk has kept out.

    Raises:
        ArtifactError: there is no manifest.
    """
    with tarfile.open(file) as archive:
        members = archive.getmembers()
        manifests = [member for member in members if PurePath(member.name) == PurePath(kernel_cache.NAME)]
        if not manifests:
            raise ArtifactError(f"{file} has no {kernel_cache.NAME}; `gptoss-bento warm-caches` makes such archives.")
        archive.extractall(folder, [member for member in members if member not in manifests], filter="data")
        archive.extractall(folder, manifests, filter="data")
