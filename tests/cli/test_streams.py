"""Standard output and standard error that cannot be written to: no traceback, whatever becomes of the command."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest


def shell(line: str, *arguments: object) -> tuple[int, list[str]]:
    """The exit code of the command in a shell line that calls it `byol-edge`, and what reached standard error."""
    line = line.replace("byol-edge", f"{shlex.quote(sys.executable)} -m byol_edge", 1)
    for number, argument in enumerate(arguments, 1):
        line = line.replace(f"${number}", shlex.quote(str(argument)))
    # Where Python writes at once, some of these faults come earlier, and are easier to tell.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = ["bash", "-o", "pipefail", "-c", line]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("command", ["inspect $1", "inspect $1 --json", "--help"])
def test_a_reader_that_has_gone_is_no_error_to_tell(finished_bundle: Path, command: str):
    assert shell(f"byol-edge {command} | true", finished_bundle)[1] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("command", ["inspect $1", "inspect $1 --json", "--help", "embed --help"])
def test_a_full_disk_is_told_in_a_line(finished_bundle: Path, command: str):
    code, lines = shell(f"byol-edge {command} > /dev/full", finished_bundle)
    assert code == 1
    assert len(lines) == 1
    assert lines[0].startswith("byol-edge: writing failed: No space left on device")


@pytest.mark.parametrize(("command", "code"), [("inspect $1 >&-", 0), ("inspect gone 2>&-", 1), ("--help >&-", 0)])
def test_closed_streams_change_nothing(finished_bundle: Path, command: str, code: int):
    assert shell(f"byol-edge {command}", finished_bundle) == (code, [])
