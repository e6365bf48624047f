"""The keys that are valid now: fixed ones, and those of a file, which is read again when it changes."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gptoss_bento.config.api_keys import Key, KeysError, digest, read_keys, reason, shared_keys

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 1.0  # between two checks of the file's time
_Stamp = tuple[int, ...]


class KeyStore:
    """Finds the owner of a key. Every process has its own store and polls the file itself.

    A file that cannot be read, or is wrong, changes nothing: the keys before it stay valid, and the log says why. One
    that cannot be read is tried again at each poll, for that may pass without a change of the file.

    Args:
        fixed: the keys that do not change.
        file: more of them, in the format of docs/keys.md.
        closed: keys were configured but cannot be read; every request is refused.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        fixed: Sequence[Key] = (),
        file: Path | None = None,
        *,
        closed: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fixed = tuple(fixed)
        self._file = file
        self._clock = clock
        self._stamp: _Stamp | None = None  # of what was read last
        self._trouble: str | None = None  # with the file, as already logged
        self._next_poll_at = 0.0
        self._take(self._fixed)
        self.is_open = not (fixed or file or closed)
        """Whether no key is needed."""
        if file:
            self._poll()

    def find(self, given: str) -> Key | None:
        """The key that a client presented; None if it is not valid."""
        hashed = digest(given)
        # All are compared, each in constant time, so that the time reveals nothing about any of them.
        found = None
        for each, key in self._current():
            if hmac.compare_digest(hashed, each) and found is None:
                found = key
        return found

    def of_owner(self, owner: str) -> Key | None:
        """The key whose rows belong to this owner, if there still is one."""
        return next((key for _, key in self._current() if key.owner == owner), None)

    def _current(self) -> Sequence[tuple[bytes, Key]]:
        if self._file and self._clock() >= self._next_poll_at:
            self._poll()
        return self._digests

    def _poll(self) -> None:
        assert self._file is not None  # noqa: S101
        self._next_poll_at = self._clock() + _POLL_INTERVAL_S
        stamp = _stamp(self._file)
        if stamp is not None and stamp == self._stamp:
            return
        try:
            text = self._file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            self._stamp = None  # even if it comes back as it was
            if reason(error) != self._trouble:
                self._log_trouble(error)
            return
        self._stamp = stamp
        self._read(text)

    def _read(self, text: str) -> None:
        try:
            keys = (*self._fixed, *read_keys(text))
            if problems := shared_keys(keys):
                raise KeysError(problems)
        except KeysError as error:
            self._log_trouble(error)
            return
        if keys != self._keys or self._trouble:
            logger.info("API_KEYS_FILE: %d keys are valid now: %s", len(keys), ", ".join(key.name for key in keys))
        self._trouble = None
        self._take(keys)

    def _log_trouble(self, error: Exception) -> None:
        self._trouble = reason(error)
        logger.error("API_KEYS_FILE: %s; the keys before stay valid.", self._trouble)

    def _take(self, keys: tuple[Key, ...]) -> None:
        self._keys = keys
        self._digests = [(each, key) for key in keys for each in key.digests]


def _stamp(file: Path) -> _Stamp | None:
    """What changes whenever the file does; a secret that Kubernetes mounts is replaced behind a link."""
    try:
        seen = file.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino, seen.st_dev
