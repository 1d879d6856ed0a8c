"""From Haystack's documents to the run's events, cut to what fits into a message."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from haystream_service.pipelines.json_values import encodable, json_safe
from haystream_service.run.events import Document, Documents
from haystream_service.run.stretch import size_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from haystack.dataclasses import Document as HaystackDocument

# Together well under the 4 MiB that a stock client takes in one message, as UTF-8 and with the fields around them.
EVENT_BYTES = 1024 * 1024
CONTENT_CHARACTERS = 256 * 1024
META_BYTES = 256 * 1024


def document_events(component: str, documents: Sequence[HaystackDocument]) -> Iterator[Documents]:
    """Yield a component's documents in as few events as they fit into; one without any where nothing was found."""
    batch: list[Document] = []
    size = 0
    for document in map(_document, documents):
        weight = size_bytes(Documents(component, (document,)))
        if batch and size + weight > EVENT_BYTES:
            yield Documents(component, tuple(batch))
            batch, size = [], 0
        batch.append(document)
        size += weight
    if batch or not documents:
        yield Documents(component, tuple(batch))


def _document(document: HaystackDocument) -> Document:
    content, meta = encodable(document.content or ""), json_safe(document.meta)
    fits = size_bytes(Documents("", (Document("", "", None, meta),))) <= META_BYTES
    return Document(
        id=document.id,
        content=content[:CONTENT_CHARACTERS],
        score=document.score if document.score is not None and math.isfinite(document.score) else None,
        meta=meta if fits else dict[str, Any](),
        is_truncated=len(content) > CONTENT_CHARACTERS or not fits,
    )
