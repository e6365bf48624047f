"""The command `gptoss-bento`, as tests call it."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from gptoss_bento.cli import main


def invoke(*arguments: str) -> Result:
    """Runs it in this process."""
    return CliRunner().invoke(main.app, arguments)


def words(result: Result) -> list[list[str]]:
    """The lines of a table as lists of words."""
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.output.splitlines()]
