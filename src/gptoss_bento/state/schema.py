"""The tables of the database, as they are in the newest version."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite generates only INTEGER keys

JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("low_priority", sa.Boolean, nullable=False),
    sa.Column("queued_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("execution_timeout_ms", sa.BigInteger, nullable=False),
    sa.Column("ttl_ms", sa.BigInteger, nullable=False),
    sa.Column("result_ttl_ms", sa.BigInteger, nullable=False),
    sa.Column("worker_id", sa.Text),
    sa.Column("attempt", sa.Integer, nullable=False),  # which run this is; writes of another run do not count
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("recoveries", sa.Integer, nullable=False),  # of these, runs after a worker died
    sa.Column("error", sa.Text),
    sa.Column("refused", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("item_count", sa.Integer, nullable=False),
    sa.Column("delivered", sa.Integer, nullable=False),  # items that /stream has returned
    sa.Column("webhook", sa.Text),
    sa.Column("webhook_due_at", sa.BigInteger),  # null: nothing to deliver
    sa.Column("webhook_attempts", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text),  # of the key that submitted it; before schema 5 a listed key had its place: key-1
    sa.Column("key_limits", sa.Text),  # the key's limits at that time, as JSON; null: none
    sa.Index("jobs_queue", "status", "low_priority", "queued_at", "seq"),
    sa.Index("jobs_expiry", "expires_at"),
    sa.Index("jobs_webhooks", "webhook_due_at"),
    sqlite_autoincrement=True,
)
INPUTS = sa.Table(  # a separate table, because SQLite rewrites the whole row at every change
    "inputs",
    METADATA,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("input", sa.Text, nullable=False),
)
ITEMS = sa.Table(
    "items",
    METADATA,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("output", sa.Text, nullable=False),
)
WORKERS = sa.Table(  # the leases of worker processes
    "workers",
    METADATA,
    sa.Column("worker_id", sa.Text, primary_key=True),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
)
TOTALS = sa.Table(  # of the jobs that have been deleted
    "totals",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
)
RESPONSES = sa.Table(  # what /v1/responses has answered, or is answering
    "responses",
    METADATA,
    sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    sa.Column("owner", sa.Text, nullable=False),  # of the key that made it; empty: the server was open
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("previous_seq", sa.BigInteger),  # the response that it continues
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("worker_id", sa.Text),  # which generates it; null once it has ended
    sa.Column("object", sa.Text, nullable=False),  # JSON, without its output
    sa.Column("event_count", sa.Integer, nullable=False),
    sa.Column("keeps_events", sa.Boolean, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("conversation_seq", sa.BigInteger),  # the conversation that it is a turn of
    sa.Column("conversation_position", sa.Integer),  # of the first item after those that it was made from
    # Of a response in the background alone:
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),  # which run this is; another's writes fail
    sa.Column("recoveries", sa.Integer, nullable=False, server_default="0"),  # runs after a worker ended
    sa.Column("is_followed", sa.Boolean, nullable=False, server_default=sa.false()),  # a client has had an event
    sa.UniqueConstraint("owner", "id", name="responses_ids"),
    sa.Index("responses_previous", "previous_seq"),
    sa.Index("responses_expiry", "expires_at"),
    sa.Index("responses_owners", "owner", "expires_at", "seq"),
    sa.Index("responses_workers", "worker_id"),
    sa.Index("responses_conversations", "conversation_seq"),
    sqlite_autoincrement=True,
)
RESPONSE_ITEMS = sa.Table(  # of its request, then of its output
    "response_items",
    METADATA,
    sa.Column("response_seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("is_output", sa.Boolean, nullable=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("item", sa.Text, nullable=False),  # JSON
    sa.Index("response_items_ids", "id"),
)
RESPONSE_EVENTS = sa.Table(  # of a response whose stream can be resumed
    "response_events",
    METADATA,
    sa.Column("response_seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),  # the event's sequence_number
    sa.Column("event", sa.Text, nullable=False),  # JSON
)
SECRETS = sa.Table(  # that the service makes for itself
    "secrets",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
CONVERSATIONS = sa.Table(
    "conversations",
    METADATA,
    sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    sa.Column("owner", sa.Text, nullable=False),  # as of responses
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),  # JSON
    sa.Column("next_position", sa.Integer, nullable=False),  # grows with each change of the items
    sa.Column("response_seq", sa.BigInteger),  # its newest turn; while that runs, nothing else changes the items
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("owner", "id", name="conversations_ids"),
    sa.Index("conversations_expiry", "expires_at"),
    sa.Index("conversations_owners", "owner", "expires_at", "seq"),
    sqlite_autoincrement=True,
)
CONVERSATION_ITEMS = sa.Table(  # copies: a response and its conversation are deleted apart
    "conversation_items",
    METADATA,
    sa.Column("conversation_seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("item", sa.Text, nullable=False),  # JSON
    sa.Index("conversation_items_ids", "id"),
)
FILES = sa.Table(  # of /v1/files; their content is in FILES_DIR
    "files",
    METADATA,
    sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("worker_id", sa.Text),  # which receives its content; null once it is complete
    sa.Column("stored_as", sa.Text, nullable=False),  # the name of its content in the folder
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Index("files_expiry", "state", "expires_at"),
    sa.Index("files_owners", "owner", "seq"),
    sqlite_autoincrement=True,
)
BATCHES = sa.Table(  # of /v1/batches; times are seconds, as in the objects of OpenAI
    "batches",
    METADATA,
    sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("key_limits", sa.Text),  # the key's limits at that time, as JSON; null: none
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("input_file_id", sa.Text, nullable=False),
    sa.Column("output_file_id", sa.Text),
    sa.Column("error_file_id", sa.Text),
    sa.Column("output_ttl_s", sa.BigInteger, nullable=False),
    sa.Column("metadata", sa.Text),  # JSON
    sa.Column("model", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("in_progress_at", sa.BigInteger),
    sa.Column("finalizing_at", sa.BigInteger),
    sa.Column("completed_at", sa.BigInteger),
    sa.Column("failed_at", sa.BigInteger),
    sa.Column("expired_at", sa.BigInteger),
    sa.Column("cancelling_at", sa.BigInteger),
    sa.Column("cancelled_at", sa.BigInteger),
    sa.Column("expires_at", sa.BigInteger, nullable=False),  # it has until then to end
    sa.Column("kept_until", sa.BigInteger, nullable=False),
    sa.Column("errors", sa.Text),  # JSON
    sa.Column("usage", sa.Text),  # JSON
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("completed", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("worker_id", sa.Text),  # which runs it; null: none does
    sa.Column("attempt", sa.Integer, nullable=False),  # which run this is; writes of another run do not count
    sa.Column("interruptions", sa.Integer, nullable=False),  # runs whose worker ended without giving it back
    sa.Index("batches_owners", "owner", "seq"),
    sa.Index("batches_queue", "status", "seq"),
    sa.Index("batches_inputs", "input_file_id"),
    sqlite_autoincrement=True,
)
RESPONSE_REQUESTS = sa.Table(  # of responses in the background that have not ended: with it any worker generates them
    "response_requests",
    METADATA,
    sa.Column("response_seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("request", sa.Text, nullable=False),  # JSON
    sa.Column("key_limits", sa.Text),  # the key's limits at that time, as JSON; null: none
)
IDEMPOTENCY_KEYS = sa.Table(  # the values of Idempotency-Key that an owner has used
    "idempotency_keys",
    METADATA,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),  # of the request
    sa.Column("target", sa.Text, nullable=False),  # the id of what the request has made
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Index("idempotency_keys_targets", "target"),
    sa.Index("idempotency_keys_expiry", "expires_at"),
)
