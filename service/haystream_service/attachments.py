"""The images of a conversation that are addresses yet: fetched before the run begins, each named that cannot be."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from haystream_service.errors import InvalidRequest, Violation
from haystream_service.images import ImageRefused
from haystream_service.pipelines.call import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haystream_service.images import ImageFetcher
    from haystream_service.pipelines.call import Message

MAX_URLS = 16
MAX_FETCHED_BYTES = 32 * 1024 * 1024  # of all images of a request


async def fetched(messages: Sequence[Message], images: ImageFetcher) -> list[Message]:
    """Return the messages with the bytes of their images. Raises InvalidRequest."""
    wanted = {
        f"conversation.messages[{index}].parts[{place}].image.url": part.url
        for index, message in enumerate(messages)
        for place, part in enumerate(message.parts)
        if isinstance(part, Image) and part.url
    }
    if len(wanted) > MAX_URLS:
        raise InvalidRequest(Violation("conversation.messages", f"expected at most {MAX_URLS} images by `url`"))
    answers = dict(zip(wanted, await asyncio.gather(*(_fetch(images, url) for url in wanted.values())), strict=True))
    wrong = [Violation(path, str(answer)) for path, answer in answers.items() if isinstance(answer, ImageRefused)]
    found = [answer for answer in answers.values() if isinstance(answer, Image)]
    if sum(len(image.data) for image in found) > MAX_FETCHED_BYTES:
        wrong = [Violation("conversation.messages", f"its images have more than {MAX_FETCHED_BYTES} bytes together")]
    if wrong:
        raise InvalidRequest(*wrong)
    in_order = iter(found)
    return [
        replace(
            message,
            parts=[next(in_order) if isinstance(part, Image) and part.url else part for part in message.parts],
        )
        for message in messages
    ]


async def _fetch(images: ImageFetcher, url: str) -> Image | ImageRefused:
    try:
        image = await images.fetch(url)
    except ImageRefused as refused:
        return refused
    return Image(image.data, image.mime_type)
