"""Which custom_ids have been seen: digests of a fixed size, whatever clients choose. Pure."""

from __future__ import annotations

from hashlib import blake2b

_DIGEST_BYTES = 16


class LineIds:
    """A set of custom_ids. 50,000 take some 5 MB."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def __contains__(self, custom_id: str) -> bool:
        return _digest(custom_id) in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, custom_id: str) -> bool:
        """Adds one. Returns False if it was there."""
        before = len(self._digests)
        self._digests.add(_digest(custom_id))
        return len(self._digests) > before


def _digest(custom_id: str) -> bytes:
    return blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
