"""A running engine, as the rest of the service sees it.

vLLM is imported inside the functions: `bentoml build` imports this module too, and importing vLLM takes seconds.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gptoss_bento.http.fields.served_model import ServedModel

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.v1.engine.async_llm import AsyncLLM


@dataclass(frozen=True)
class Engine:
    """A running engine: vLLM's client object and vLLM's FastAPI application over it, and what it serves."""

    client: AsyncLLM
    app: FastAPI
    served_model: ServedModel

    @property
    def unfinished_requests(self) -> int:
        """Requests that run or wait in the engine now."""
        return int(self.client.get_num_unfinished_requests())

    @property
    def sequences(self) -> int:
        """How many sequences the engine works on at the same time; further ones wait."""
        config = self.client.vllm_config
        return int(config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size)

    @property
    def dead(self) -> bool:
        """Whether vLLM has given up; it never comes back by itself."""
        return bool(self.client.errored)

    @property
    def exit_signal(self) -> int | None:
        """The signal that ended the engine's process, if one did; None too where another worker started it."""
        return next((-code for code in self._exit_codes() if code < 0), None)

    @property
    def crashed(self) -> bool:
        """Whether the engine's process ended without SIGTERM or SIGINT; False where another worker started it."""
        return any(code not in (0, -signal.SIGTERM, -signal.SIGINT) for code in self._exit_codes())

    def _exit_codes(self) -> list[int]:
        manager = getattr(getattr(self.client.engine_core, "resources", None), "engine_manager", None)
        return [process.exitcode or 0 for process in getattr(manager, "processes", [])]

    @property
    def context_tokens(self) -> int:
        """Tokens of prompt and answer together."""
        return int(self.client.model_config.max_model_len)

    @property
    def can_search(self) -> bool:
        """Whether there is a tool server that searches for the model."""
        serving = getattr(self.app.state, "openai_serving_responses", None)
        server = getattr(serving, "tool_server", None)
        return server is not None and bool(server.has_tool("browser"))

    async def answer(self) -> None:
        """Returns when the engine's loop has answered, between two of its steps."""
        await self.client.is_sleeping()

    def abort_all(self, message: str) -> None:
        """Aborts every running request with a 503: an error body, or the final event of a stream that has started."""
        from vllm.exceptions import GracefulHTTPError

        error = GracefulHTTPError(message, HTTPStatus.SERVICE_UNAVAILABLE)
        self.client.output_processor.propagate_error(error)

    def token_bytes(self, token_ids: Sequence[int]) -> list[bytes] | None:
        """The bytes of each token, or None where the tokenizer does not work on bytes. Special tokens are empty."""
        return token_bytes(self.client.get_tokenizer(), token_ids)


def token_bytes(tokenizer: Any, token_ids: Sequence[int]) -> list[bytes] | None:
    """The bytes of each token, by a Hugging Face tokenizer; see `Engine.token_bytes`."""
    alphabet = _byte_alphabet()
    special = set(tokenizer.all_special_ids)
    pieces = []
    for token, text in zip(token_ids, tokenizer.convert_ids_to_tokens(list(token_ids)), strict=True):
        if token in special:
            pieces.append(b"")
        elif text is None or not alphabet.keys() >= set(text):
            return None
        else:
            pieces.append(bytes(alphabet[character] for character in text))
    return pieces


@cache
def _byte_alphabet() -> dict[str, int]:
    """The characters by which byte-level vocabularies write bytes: GPT-2's convention, which gpt-oss keeps."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
