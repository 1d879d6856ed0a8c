"""Checks what `make lint` cannot see in one tree: that generated code is fresh, and that the contract breaks nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
GENERATED = Path("proto/haystream/v1")


def main() -> int:
    """Return how many of the checks failed."""
    return generated_code_is_stale() + contract_is_broken()


def generated_code_is_stale() -> bool:
    """Generate the code anew and compare; what is there afterwards is the fresh one."""
    before = contents()
    subprocess.run(["make", "--silent", "proto"], check=True)
    stale = sorted(name for name in before.keys() | contents().keys() if before.get(name) != contents().get(name))
    for name in stale:
        print(f"{GENERATED / name}: not what `make proto` makes of the contract; commit the fresh one")
    return bool(stale)


def contents() -> dict[str, bytes]:
    """Return the generated files by name."""
    return {path.name: path.read_bytes() for path in GENERATED.glob("*_pb2*.py*")}


def contract_is_broken() -> bool:
    """Compare the contract with that of the main branch; on the main branch itself, with the first one there was."""
    earlier = earlier_commit()
    if not earlier:
        print("the history holds no earlier contract to compare with")
        return False
    return subprocess.run([BIN / "buf", "breaking", "--against", f".git#ref={earlier}"], check=False).returncode != 0


def earlier_commit() -> str:
    """Return the commit whose contract callers rely on; empty where there is none."""
    head = git("rev-parse", "HEAD")
    for branch in ("origin/main", "main"):
        commit = git("rev-parse", "--verify", "--quiet", branch)
        if commit and commit != head:
            return commit
    return git("log", "--diff-filter=A", "--format=%H", "--", str(GENERATED / "chat.proto")).rpartition("\n")[2]


def git(*arguments: str) -> str:
    """Return what git prints."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
