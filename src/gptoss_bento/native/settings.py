"""What the operator can change about jobs. Read from the environment elsewhere; here only names, defaults and units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class JobSettings:
    """Settings of the job API. Defaults are those of the contract (docs/native-api.md); `_ms` is milliseconds."""

    native_output_format: Literal["tokens", "openai"] = "tokens"
    native_default_max_tokens: int = 100
    default_batch_size: int = 50
    default_min_batch_size: int = 1
    default_batch_size_growth_factor: float = 3.0
    raw_openai_output: bool = True
    max_concurrency: int = 30
    default_endpoint_id: str = "local"
    endpoint_ids: frozenset[str] = frozenset()
    execution_timeout_ms: int = 600_000
    job_ttl_ms: int = 86_400_000
    runsync_wait_ms: int = 90_000
    async_result_ttl_ms: int = 1_800_000
    sync_result_ttl_ms: int = 60_000
    max_run_body_bytes: int = 10_485_760
    max_runsync_body_bytes: int = 20_971_520
    max_queue_size: int = 10_000
    webhook_allow_private: bool = False
    webhook_retries: int = 2
    webhook_retry_delay_ms: int = 10_000
    route_allowlist: tuple[str, ...] = ("/v1/*", "/tokenize", "/detokenize", "/health", "/version")
    job_store_url: str | None = None
    """A SQLAlchemy URL, `postgresql+asyncpg://…` or `sqlite+aiosqlite:///…`; None means a SQLite file in the cache."""
