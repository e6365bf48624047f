"""What a confined child may read: the interpreter's library, installed packages, and the shared objects these need."""

from __future__ import annotations

import site
import sysconfig
from typing import Final

_SHARED_OBJECTS: Final = ("/lib64", "/usr/lib64", "/etc/ld.so.cache")
_TIME_ZONES: Final = "/usr/share/zoneinfo"


def packages() -> list[str]:
    """Folders of installed packages, as `sys.path` has them."""
    paths = [*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return list(dict.fromkeys(paths))


def readable() -> list[str]:
    """Folders and files, those of `packages` included. Some may not exist."""
    library = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    triplet = sysconfig.get_config_var("MULTIARCH")
    shared = [f"/lib/{triplet}", f"/usr/lib/{triplet}"] if triplet else []
    return list(dict.fromkeys([*library, *packages(), *shared, *_SHARED_OBJECTS, _TIME_ZONES]))
