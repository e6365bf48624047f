"""The content of a folder that was filled ahead of time: every file with its size and SHA-256.

`gptoss-bento bake` writes it beside the models, into an image or onto a volume. A start that finds one with models from
the hub runs with the hub switched off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptoss_bento.errors import ArtifactError

NAME = "manifest.json"


@dataclass(frozen=True)
class File:
    """A file by its path, relative to its source's folder; sizes in bytes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where files came from: a model on the hub at a commit, or a part of this package (then without commit).

    `folder` is relative to the manifest if it is below it. `asked` is the requested revision.
    """

    name: str
    folder: str
    files: tuple[File, ...]
    asked: str | None = None
    commit: str | None = None


@dataclass(frozen=True)
class Manifest:
    """All sources, and the hub's cache (HF_HOME) they were fetched into, relative if it is below the manifest."""

    sources: tuple[Source, ...]
    hub: str | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The models that came from the hub."""
        return tuple(source.name for source in self.sources if source.commit)

    def hub_home(self, folder: Path) -> Path | None:
        """HF_HOME as it is now; None if nothing came from the hub. `folder` is the manifest's."""
        return folder / self.hub if self.hub and self.models else None

    def write(self, folder: Path) -> None:
        """Writes the manifest into its folder, in one step."""
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{NAME}"
        unfinished.write_text(json.dumps(asdict(self), indent=1) + "\n")
        unfinished.replace(folder / NAME)


def read(folder: Path) -> Manifest | None:
    """The manifest in this folder, if there is one.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        content = json.loads((folder / NAME).read_text())
        return Manifest(tuple(_source(each) for each in content["sources"]), content["hub"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / NAME} cannot be read ({error}). Run `gptoss-bento bake` again.") from None


def _source(content: dict[str, Any]) -> Source:
    return Source(**{**content, "files": tuple(File(**file) for file in content["files"])})


def describe(name: str, folder: Path, root: Path, asked: str | None = None, commit: str | None = None) -> Source:
    """Reads all files below `folder` and returns them as one source; `root` is the manifest's folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = tuple(File(path.relative_to(folder).as_posix(), path.stat().st_size, sha256(path)) for path in paths)
    return Source(name, relative(folder, root), files, asked, commit)


def relative(path: Path, root: Path) -> str:
    """The path below root, so that the whole folder can be moved; absolute if it is elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def problems(manifest: Manifest, folder: Path) -> Iterator[str]:
    """What differs from the manifest, a sentence a file. Reads every byte."""
    for source in manifest.sources:
        for file in source.files:
            yield from _problems_of(folder / source.folder / file.path, file)


def _problems_of(path: Path, file: File) -> Iterable[str]:
    if not path.is_file():
        return [f"{path} is missing"]
    if (size := path.stat().st_size) != file.bytes:
        return [f"{path} has {size} bytes, expected {file.bytes}"]
    if (found := sha256(path)) != file.sha256:
        return [f"{path} has the SHA-256 {found}, expected {file.sha256}"]
    return []


def sha256(path: Path) -> str:
    """Of a file of any size."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def git_blob(path: Path) -> str:
    """The name that git, and the hub, have for a small file: SHA-1 of a header and the content (gitformat-objects)."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
