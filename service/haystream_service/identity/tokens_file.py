"""The tokens' file as it is now: read as the service starts, and again on change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from anyio import to_thread

from haystream_service.errors import IdentityFileError
from haystream_service.files import read_at_most
from haystream_service.identity.callers import Callers
from haystream_service.identity.tokens_format import TokensFormatError, callers_of

if TYPE_CHECKING:
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from haystream_service.identity.principal import Rights

MAX_BYTES = 4 << 20
SETTING = "HAYSTREAM_TOKENS_FILE"


class TokensFile:
    """Whoever the file names, of whom `callers` is always the newest. What is wrong later changes nothing."""

    def __init__(self, file: Path, unless_said: Rights, log: FilteringBoundLogger) -> None:
        self._file = file
        self._unless_said = unless_said
        self._log = log
        self._content: bytes | None = None
        self._turn = asyncio.Lock()  # who reads later has read what is newer
        self._complaint = ""  # the last that was logged
        self.callers = Callers({}, {}, unless_said)

    async def read(self) -> None:
        """Read the file for the first time. Raises IdentityFileError."""
        try:
            await self._read()
        except TokensFormatError as error:
            raise IdentityFileError(f"{SETTING}: {self._file}: {error}") from None

    async def look_again(self) -> None:
        """Take what the file says now, or log once what is wrong with it."""
        try:
            is_new = await self._read()
        except TokensFormatError as error:
            if str(error) != self._complaint:
                self._log.warning(
                    "the tokens' file is wrong; what it said before stays in force",
                    setting=SETTING,
                    file=str(self._file),
                    complaint=str(error),
                )
            self._complaint = str(error)
        else:
            if is_new or self._complaint:
                self._log.info("the tokens' file is in force as it is now", file=str(self._file))
            self._complaint = ""

    async def _read(self) -> bool:
        async with self._turn:
            # Not in the loop's own threads, all of which components may have.
            content, callers = await to_thread.run_sync(self._parse)
            if callers is not None:
                self._content, self.callers = content, callers
            return callers is not None

    def _parse(self) -> tuple[bytes, Callers | None]:
        """Return what there is; no callers where it is what there was."""
        try:
            content = read_at_most(self._file, MAX_BYTES)
        except OSError as error:
            raise TokensFormatError(f"it cannot be read ({error.strerror}); see to its place and its rights") from None
        return content, None if content == self._content else callers_of(content, self._unless_said)
