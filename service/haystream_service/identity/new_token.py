"""The command haystream-token: a new token for its holder, and its hash for the tokens' file."""

from __future__ import annotations

import argparse
import hashlib
import secrets
import sys

from haystream_service.identity.callers import TOKEN_PREFIX
from haystream_service.identity.tokens_format import tokens_name

ENTRY = """\
# For the file of HAYSTREAM_TOKENS_FILE. The token is printed apart from this, and is not shown again.
principals:
  {name}:
    tokens: ["sha256:{digest}"]
"""


def main() -> None:
    """Print the token alone to standard output, and what the file has to say, as YAML, to standard error."""
    parser = argparse.ArgumentParser(
        prog="haystream-token",
        description="Makes a token for a caller of the service. Prints the token to standard output, and to standard "
        "error what the tokens' file has to say of it: `haystream-token NAME > TOKEN 2> FILE` makes both.",
    )
    parser.add_argument("name", metavar="NAME", help="who will call with it: 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-`")
    name = parser.parse_args().name
    try:
        tokens_name(name)
    except ValueError as error:
        parser.error(str(error))
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    sys.stderr.write(ENTRY.format(name=_quoted(name), digest=digest))
    sys.stderr.flush()
    print(token)  # noqa: T201 - what the command is for


def _quoted(name: str) -> str:
    """Return a name so that YAML reads it as text: on its own `no` or `1e3` would be something else."""
    return f'"{name}"'
