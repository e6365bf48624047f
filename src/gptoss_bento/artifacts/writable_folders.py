"""Whether this user may write where the service keeps its files, and whose they are. Creates nothing.

A platform may choose the user: OpenShift starts a container under a uid of its own in group 0.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gptoss_bento.errors import MachineError

REMEDY = (
    "Give it to group 0 and make it group-writable (chgrp -R 0, chmod -R g=u), or name another folder in {variable}."
)


def check(path: Path, variable: str) -> None:
    """Refuses a file or folder that this user can neither write nor create.

    Args:
        variable: what names another one.

    Raises:
        MachineError: it cannot be written; the text names path, uid and owner.
    """
    if reason := obstacle(path):
        raise MachineError(f"{reason}. {REMEDY.format(variable=variable)}")


def obstacle(path: Path) -> str | None:
    """Why nothing can be written at this path, or None if it can be, or could be once it is made."""
    for place in (path, *path.parents):
        if os.path.lexists(place):
            needed = os.W_OK | os.X_OK if place.is_dir() else os.W_OK
            return None if os.access(place, needed) else _description(path, place)
    return None


def refused(error: PermissionError) -> str:
    """What the error is about, with path and uid."""
    path = str(error.filename) if error.filename else ""
    return f"{(obstacle(Path(path)) if path else None) or f'{path or error} may not be used by {_user()}'}."


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
