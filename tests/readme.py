"""The README's commands and snippets, to be run as they stand."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def blocks(language: str) -> list[str]:
    """Return the README's blocks in a language."""
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
