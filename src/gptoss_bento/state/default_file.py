"""The file of jobs that a service has where JOB_STORE_URL is not set: one that no other running service has.

Beside each file is a lock file, which the workers of one service hold together and the kernel releases when they end,
however they do. A further service on the machine finds it held and takes the next file: `demo.sqlite3`, then
`demo+2.sqlite3`. A file that no running service has belongs to the next that starts, so no job is forgotten; the lock
file has the port on which it was used last, and a service prefers the one of its own port.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gptoss_bento.errors import ConfigurationError

FROM_URL = "JOB_STORE_URL; services with the same one share a queue"
"""The origin of a store that the operator named."""

_SUFFIX = ".sqlite3"
_LOCK = ".lock"
_TURN = "claims.lock"  # held while a service looks for its file, for milliseconds
_MODE = 0o660

_held: set[int] = set()


def _close_in_child() -> None:
    """A fork of a worker, such as vLLM's engine process, must not keep the lock when the worker has ended."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


@dataclass(frozen=True)
class Owner:
    """A service: an id that its workers share and that no other start has, and the port it listens on, if known."""

    service: str
    port: int | None = None

    def is_same(self, other: Owner | None) -> bool:
        """Whether it is another worker of this service."""
        return other is not None and other.service == self.service

    def __str__(self) -> str:
        return f"the service on port {self.port}" if self.port else "another service"


@dataclass(frozen=True)
class DefaultFile:
    """The file of a service, and what is to be said about it.

    Args:
        path: of the file, which may not be there yet.
        in_use: the files before it that other running services have.
        former: who had it last, on another port, and does not run.
        is_joined: whether another worker of the same service has it already.
    """

    path: Path
    in_use: Sequence[tuple[Path, Owner]] = ()
    former: Owner | None = None
    is_joined: bool = False
    _descriptor: int | None = field(default=None, repr=False, compare=False)

    @property
    def is_usual(self) -> bool:
        """Whether there is nothing that an operator does not expect."""
        return not self.in_use and self.former is None

    @property
    def origin(self) -> str:
        """Why it is this file, for the plan."""
        if self.in_use:
            others = ", ".join(f"{path.name} is in use by {owner}" for path, owner in self.in_use)
            return f"{others}; only JOB_STORE_URL makes services share a queue"
        if self.former is not None:
            return f"was in use by {self.former}, which does not run now; its jobs are taken up"
        return "default: no other running service has it"

    def release(self) -> None:
        """Leaves the file to others, once all workers of the service have done so."""
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            os.close(self._descriptor)


def first_file(folder: Path, profile: str, model_name: str | None) -> Path:
    """The file of the first service of a model. One for each model, because a service takes up the jobs it finds."""
    names = [Path(profile).stem, *([model_name] if model_name else [])]
    return folder / (re.sub(r"[^\w.-]+", "-", "-".join(names)) + _SUFFIX)


def claim(first: Path, owner: Owner) -> DefaultFile:
    """Finds the file of this service and holds it until `release`, or until this process ends.

    Raises:
        PermissionError: this user may not write into the folder.
        ConfigurationError: the folder cannot be used for another reason.
    """
    try:
        first.parent.mkdir(parents=True, exist_ok=True)
        with _turn(first.parent, os.O_CREAT):
            return _claim(first, owner, keep=True)
    except PermissionError:  # the service's end names path, uid and owner
        raise
    except OSError as error:
        raise ConfigurationError(
            f"The folder of the jobs, {first.parent}, cannot be used: {error.strerror}. {_remedy(error)}"
        ) from error


_NO_LOCKS = frozenset([errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])  # of file systems without flock
_FULL = frozenset([errno.ENOSPC, errno.EDQUOT])


def _remedy(error: OSError) -> str:
    if error.errno in _NO_LOCKS:
        return (
            "Its file system has no locks (flock), which some network file systems lack: set GPTOSS_BENTO_CACHE to a "
            "folder on another one, or JOB_STORE_URL to a database elsewhere."
        )
    first = "Make room on its disk" if error.errno in _FULL else "Make it writable for this user"
    return f"{first}, or set GPTOSS_BENTO_CACHE or JOB_STORE_URL."


def look(first: Path, owner: Owner) -> DefaultFile:
    """The file that this service would have if it started now. Changes nothing."""
    with suppress(OSError), _turn(first.parent, 0):
        return _claim(first, owner, keep=False)
    return DefaultFile(first)


@contextmanager
def _turn(folder: Path, flags: int) -> Iterator[None]:
    descriptor = os.open(folder / _TURN, os.O_RDWR | os.O_CLOEXEC | flags, _MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _claim(first: Path, owner: Owner, *, keep: bool) -> DefaultFile:
    """The first file, in the order of preference, whose lock can be had."""
    in_use: dict[int, tuple[Path, Owner]] = {}
    numbered = {number: _numbered(first, number) for number in _numbers(first)}
    last_owners = {number: _last_owner(path) for number, path in numbered.items()}

    def preference(number: int) -> tuple[bool, bool, int]:
        last = last_owners[number]
        is_own_port = last is not None and owner.port is not None and last.port == owner.port
        return not owner.is_same(last), not is_own_port, number

    for number in sorted(numbered, key=preference):
        path, last = numbered[number], last_owners[number]
        is_joined = owner.is_same(last)
        if (taken := _take(path, owner, is_joined=is_joined, keep=keep)) is not None:
            before = [other for at, other in sorted(in_use.items()) if at < number]
            former = last if last and last.port != owner.port and not is_joined else None
            return DefaultFile(path, before, former, is_joined, taken if keep else None)
        in_use[number] = path, last or Owner("")
    raise AssertionError("the last of the numbers has no lock yet")


def _numbers(first: Path) -> list[int]:
    """The numbers of the files that were claimed before, the first, and the smallest that is free."""
    pattern = re.compile(re.escape(first.stem) + r"\+([1-9]\d*)" + re.escape(_SUFFIX + _LOCK))
    found = {1} | {int(match[1]) for path in first.parent.iterdir() if (match := pattern.fullmatch(path.name))}
    free = next(number for number in range(2, len(found) + 3) if number not in found)
    return sorted(found | {free})


def _numbered(first: Path, number: int) -> Path:
    return first if number == 1 else first.with_name(f"{first.stem}+{number}{_SUFFIX}")


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + _LOCK)


def _last_owner(path: Path) -> Owner | None:
    """Who has the file or had it last; None if there is none, or an older version that kept no lock."""
    try:
        return Owner(**json.loads(_lock_of(path).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _take(path: Path, owner: Owner, *, is_joined: bool, keep: bool) -> int | None:
    """The descriptor that holds the lock, shared with the workers of the same service; None if others hold it."""
    if not keep and not _lock_of(path).exists():
        return -1
    descriptor = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    is_taken = _flock(descriptor, fcntl.LOCK_SH if is_joined else fcntl.LOCK_EX)
    if not is_taken or not keep:
        os.close(descriptor)
        return -1 if is_taken else None
    if not is_joined:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(owner)).encode(), 0)
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # no other service can come in between
    _held.add(descriptor)
    return descriptor


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
