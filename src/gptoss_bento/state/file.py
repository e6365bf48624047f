"""Files of /v1/files as the store has them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FileState(StrEnum):
    """Only a complete file is found."""

    UPLOADING = "uploading"
    COMPLETE = "complete"
    DELETED = "deleted"  # its content is still on disk


@dataclass(frozen=True)
class FileLimits:
    """What one owner may have.

    Attributes:
        count: of files.
        bytes: of all files together.
    """

    count: int
    bytes: int


@dataclass(frozen=True)
class NewFile:
    """A file whose content is complete, or is on its way.

    Attributes:
        stored_as: the name of its content in the folder.
        ttl_ms: milliseconds that it is kept.
    """

    owner: str
    id: str
    purpose: str
    filename: str
    bytes: int
    stored_as: str
    ttl_ms: int


@dataclass(frozen=True)
class StoredFile:
    """A complete file. Times are milliseconds since 1970."""

    id: str
    purpose: str
    filename: str
    bytes: int
    stored_as: str
    created_at: int
    expires_at: int


@dataclass(frozen=True)
class FilePage:
    """Part of a list."""

    files: tuple[StoredFile, ...]
    has_more: bool
