"""The command as typed, inside the tests' own process."""

from __future__ import annotations

from byol_edge.cli.main import cli
from click.testing import CliRunner, Result


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def fails(code: int, *arguments: object) -> str:
    """The one line on standard error of a command that leaves with `code`."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert "Traceback" not in result.stderr
    assert lines[-1].startswith(("byol-edge: ", "Error: "))
    return lines[-1]
