"""The images of a conversation that are addresses yet: fetched before the run begins, each named that cannot be."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from haystream_service.errors import InvalidRequest, TooManyImages, Violation
from haystream_service.images import ImageRefused
from haystream_service.pipelines.call import Image

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from haystream_service.images import ImageFetcher
    from haystream_service.pipelines.call import Message

MAX_URLS = 16
MAX_FETCHED_BYTES = 16 * 1024 * 1024  # of all images of a request
FETCHING_REQUESTS = 16  # at once; they hold what they have until all is there
WAIT_SECONDS = 5.0


class Attachments:
    """Brings what images' URLs lead to, for some requests at a time, and one image of each at a time."""

    def __init__(self, images: ImageFetcher) -> None:
        self._images = images
        self._places = asyncio.Semaphore(FETCHING_REQUESTS)

    async def fetched(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return the messages with the bytes of their images. Raises InvalidRequest, TooManyImages."""
        wanted = {
            (index, place): part.url
            for index, message in enumerate(messages)
            for place, part in enumerate(message.parts)
            if isinstance(part, Image) and part.url
        }
        if not wanted:
            return messages
        if len(wanted) > MAX_URLS:
            raise InvalidRequest(Violation("conversation.messages", f"expected at most {MAX_URLS} images by `url`"))
        async with self._place():
            found = await self._all(wanted)
        return [
            replace(message, parts=[found.get((index, place), part) for place, part in enumerate(message.parts)])
            for index, message in enumerate(messages)
        ]

    async def _all(self, wanted: dict[tuple[int, int], str]) -> dict[tuple[int, int], Image]:
        found: dict[tuple[int, int], Image] = {}
        wrong: list[Violation] = []
        size = 0
        for (index, place), url in wanted.items():
            try:
                image = await self._images.fetch(url)
            except ImageRefused as refused:
                wrong.append(Violation(f"conversation.messages[{index}].parts[{place}].image.url", str(refused)))
                continue
            size += len(image.data)
            if size > MAX_FETCHED_BYTES:
                cure = f"its images have more than {MAX_FETCHED_BYTES} bytes together; send fewer, or smaller ones"
                raise InvalidRequest(Violation("conversation.messages", cure))
            found[index, place] = Image(image.data, image.mime_type)
        if wrong:
            raise InvalidRequest(*wrong)
        return found

    @asynccontextmanager
    async def _place(self) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise TooManyImages(FETCHING_REQUESTS) from None
        try:
            yield
        finally:
            self._places.release()
