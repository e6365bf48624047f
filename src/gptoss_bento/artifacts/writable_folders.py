"""Whether this user may write where the service keeps its files, and whose they are. Creates nothing.

A platform may choose the user: OpenShift starts a container under a uid of its own in group 0.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

REMEDY = "Give it to group 0 and make it group-writable (chgrp -R 0, chmod -R g=u), or name another folder"


def refusal(error: PermissionError) -> str:
    """What the error is about, with path, uid and owner, and what helps."""
    path = str(error.filename) if error.filename else ""
    reason = (obstacle(Path(path)) if path else None) or f"{path or error} may not be used by {_user()}"
    return f"{reason}. {REMEDY}."


def obstacle(path: Path) -> str | None:
    """Why nothing can be written at this path, or None if it can be, or could be once it is made."""
    for place in (path, *path.parents):
        if os.path.lexists(place):
            needed = os.W_OK | os.X_OK if place.is_dir() else os.W_OK
            return None if os.access(place, needed) else _description(path, place)
    return None


def _description(path: Path, place: Path) -> str:
    purpose = "" if place == path else f"; {path} would be made there"
    return f"{place} cannot be written by {_user()}{_owner(place)}{purpose}"


def _user() -> str:
    return f"uid {os.geteuid()} (gid {os.getegid()})"


def _owner(place: Path) -> str:
    try:
        found = place.stat()
    except OSError:  # in a folder that this user may not look into
        return ""
    return f": it belongs to uid {found.st_uid}, gid {found.st_gid}, mode {stat.S_IMODE(found.st_mode):o}"
