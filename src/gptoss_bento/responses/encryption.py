"""Reasoning that a client keeps and cannot read as another's: `reasoning.encrypted_content`.

The text is `1.` and, in base64url, a nonce and what AES-GCM makes of the reasoning with it. The owner of the key that
asked is authenticated with it, so that another key's content is none.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.http.fields.included import ENCRYPTED_REASONING
from gptoss_bento.state.secret_store import SecretStore
from gptoss_bento.strict_json import dumps, loads_stored

FIELD = "encrypted_content"

_PURPOSE = b"gptoss-bento reasoning"
_VERSION = "1."
_NONCE_BYTES = 12  # AES-GCM's own length
_SECRET_BYTES = 32


class ForeignContentError(Exception):
    """The text is not what these keys have made for this owner."""


class ReasoningCipher:
    """Encrypts and decrypts reasoning.

    Args:
        keys: texts with enough chance in them; the first encrypts, all decrypt.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._ciphers = [AESGCM(_derived(key)) for key in keys]

    def encrypted(self, owner: str, content: Sequence[Any]) -> str:
        """The content of a reasoning item as only this owner can give it back."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        made = self._ciphers[0].encrypt(nonce, dumps(content).encode(), owner.encode())
        return _VERSION + urlsafe_b64encode(nonce + made).decode().rstrip("=")

    def decrypted(self, owner: str, text: str) -> list[Any]:
        """The content that this text was made of.

        Raises:
            ForeignContentError: it is another owner's, of another key, or changed.
        """
        data = _data(text)
        for cipher in self._ciphers:
            try:
                made = cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], owner.encode())
            except (InvalidTag, ValueError):
                continue
            content: list[Any] = loads_stored(made.decode())
            return content
        raise ForeignContentError

    def with_encrypted(self, owner: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """An item of an answer; that of reasoning has its content encrypted, too."""
        if item.get("type") != "reasoning" or not item.get("content"):
            return dict(item)
        return {**item, FIELD: self.encrypted(owner, item["content"])}

    def with_decrypted(self, owner: str, item: Any, place: str) -> Any:
        """An item of a request as it was before it was encrypted.

        Args:
            owner: of the key that sends it.
            item: any.
            place: of the item in the request.

        Raises:
            HttpRefusalError: its content is another's.
        """
        if not has_encrypted(item):
            return item
        try:
            content = self.decrypted(owner, item[FIELD])
        except ForeignContentError:
            where = f"{place}.{FIELD}"
            message = f"{where} could not be verified: it was not made by this server for this key, or was changed."
            raise HttpRefusalError(
                HTTPStatus.BAD_REQUEST, message, param=where, code="invalid_encrypted_content"
            ) from None
        return {**_without(item), "content": content}

    def sealed(self, owner: str, item: Any) -> Any:
        """An item of a request without its reasoning in clear; `with_decrypted` gives it back."""
        if not isinstance(item, dict) or item.get("type") != "reasoning" or not item.get("content"):
            return item
        return {name: value for name, value in self.with_encrypted(owner, item).items() if name != "content"}

    def restored(self, owner: str, item: Any) -> Any:
        """A stored item; its own content counts, where it has one: the keys may be others today."""
        return self.with_decrypted(owner, plain(item), f"item {item.get('id')}")


def plain(item: Any) -> Any:
    """An item that is stored; one that has its own content is without the encrypted one."""
    return _without(item) if has_encrypted(item) and item.get("content") else item


def has_encrypted(item: Any) -> bool:
    """Whether an item has encrypted reasoning."""
    return isinstance(item, dict) and item.get("type") == "reasoning" and isinstance(item.get(FIELD), str)


def _without(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != FIELD}


def _derived(key: str) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive(key.encode())


def _data(text: str) -> bytes:
    """The bytes of a text; none if it is not of this version."""
    if not text.startswith(_VERSION) or not text.isascii():
        return b""
    body = text.removeprefix(_VERSION)
    try:
        return urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except ValueError:
        return b""


class SharedCipher:
    """The cipher of all workers of a database.

    Args:
        store: where the key is that is made at the first use, if the operator gives none.
        keys: the operator's.
    """

    def __init__(self, store: SecretStore, keys: Sequence[str] = ()) -> None:
        self._store = store
        self._cipher = ReasoningCipher(keys) if keys else None

    async def get(self) -> ReasoningCipher:
        """The same for every worker, now and after a restart.

        Raises:
            StoreUnavailableError: the key is in the database, and was not read before.
        """
        if self._cipher is None:
            made = secrets.token_urlsafe(_SECRET_BYTES)
            self._cipher = ReasoningCipher([await self._store.shared(ENCRYPTED_REASONING, made)])
        return self._cipher
