"""`haystream-token`: a new token, and what the file says of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from haystream_service.identity.principal import Principal, Rights
from haystream_service.identity.tokens_format import callers_of
from haystream_service.logs import redacted

TOKEN = "hs_" + "a" * 43
COMMAND = [sys.executable, "-c", "from haystream_service.identity.new_token import main; main()"]


def made(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, env=environment)


def test_the_command_makes_a_token_and_the_file_that_it_is_good_with() -> None:
    """Each on a stream of its own; a name that YAML would take for something else is quoted."""
    first, second = made("no"), made("no")
    assert first.returncode == 0
    token = first.stdout.strip()
    assert len(token) == len(TOKEN)
    assert first.stdout != second.stdout
    assert token not in first.stderr
    assert callers_of(first.stderr.encode(), Rights()).with_token(token) == Principal("no", Rights())
    assert redacted(f"it is {token}!") == "it is [redacted]!"


@pytest.mark.parametrize("name", ["", "a b", "jwt:alice", "a" * 65, "ä", TOKEN, "a\n", "anyone"])
def test_the_command_refuses_a_name_that_the_file_would_not_take(name: str) -> None:
    """With what a name may have, or why it cannot be had."""
    done = made(name)
    assert done.returncode == 2
    assert done.stdout == ""
    assert ("`anyone` is what all are called" if name == "anyone" else "a name has 1 to 64") in done.stderr
    assert "Traceback" not in done.stderr
