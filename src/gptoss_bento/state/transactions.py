"""Decorators that make an asynchronous method of a function on a connection: each call is one transaction."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from gptoss_bento.state.database import Database


class Store:
    """What is kept of one kind in a database. Every method is one transaction and may raise StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def database(self) -> Database:
        """Which further stores may share."""
        return self._database


_Store = TypeVar("_Store", bound=Store)
_Result = TypeVar("_Result")
_Arguments = ParamSpec("_Arguments")
_Work = Callable[Concatenate[_Store, sa.Connection, _Arguments], _Result]
_Method = Callable[Concatenate[_Store, _Arguments], Coroutine[Any, Any, _Result]]


def reads(work: _Work[_Store, _Arguments, _Result]) -> _Method[_Store, _Arguments, _Result]:
    """Makes a method of a transaction that only reads."""
    return _transaction(work, writes=False)


def writes(work: _Work[_Store, _Arguments, _Result]) -> _Method[_Store, _Arguments, _Result]:
    """Makes a method of a transaction that may write."""
    return _transaction(work, writes=True)


def _transaction(work: _Work[_Store, _Arguments, _Result], *, writes: bool) -> _Method[_Store, _Arguments, _Result]:
    @wraps(work)
    async def method(self: _Store, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return await self._database.run(lambda connection: work(self, connection, *args, **kwargs), writes=writes)

    return method
