"""Secrets that the service makes for itself, and that all its workers and replicas share."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gptoss_bento.state.schema import SECRETS
from gptoss_bento.state.transactions import Store, writes


class SecretStore(Store):
    """The secrets of one database."""

    @writes
    def shared(self, connection: sa.Connection, name: str, proposed: str) -> str:
        """The secret of this name: what the first who asked has proposed."""
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        row = {"name": name, "value": proposed}
        connection.execute(insert(SECRETS).values(row).on_conflict_do_nothing())
        return str(connection.execute(sa.select(SECRETS.c.value).where(SECRETS.c.name == name)).scalar_one())
