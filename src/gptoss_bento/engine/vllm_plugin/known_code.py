"""Whether vLLM's code is the one that a replacement was written for: by the hashes of its functions' sources."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from logging import Logger
from typing import Any


def digest(function: Any) -> str:
    """The first characters of the SHA-256 of a function's source; by its code, for a wrapper's is what it wraps."""
    return hashlib.sha256(inspect.getsource(function.__code__).encode()).hexdigest()[:16]


def is_known(
    fingerprints: Callable[[], Mapping[str, str]], known: Mapping[str, str], what: str, logger: Logger
) -> bool:
    """Whether all of it is; writes into the log what is not.

    Args:
        fingerprints: gives the digests of the functions in this process by their names.
        known: those that the replacement was written for.
        what: stays as it is if any is another, for the log.
        logger: of the process.
    """
    try:
        unknown = sorted(name for name, found in fingerprints().items() if found != known.get(name))
    except (ImportError, AttributeError, OSError, TypeError) as error:  # no such function, or none with a source
        unknown = [str(error)]
    if unknown:
        logger.warning("gptoss-bento does not change %s; it does not know: %s.", what, ", ".join(unknown))
    return not unknown
