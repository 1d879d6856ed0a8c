"""Remembers a conversation from one call to the next, by the id that the caller gives as `inputs.conversation.id`."""

from collections import OrderedDict
from hashlib import sha256
from threading import Lock
from typing import Any

from haystack import Pipeline, component
from haystack.components.builders import ChatPromptBuilder
from haystack.dataclasses import ChatMessage

from haystream_service.errors import PipelineFileError
from haystream_service.local_model import SmolLM2ChatGenerator

try:
    from haystack_experimental.chat_message_stores import InMemoryChatMessageStore
    from haystack_experimental.components.retrievers import ChatMessageRetriever
    from haystack_experimental.components.writers import ChatMessageWriter
except ImportError:
    raise PipelineFileError("memory needs haystack-experimental: pip install 'haystream[experimental]'") from None

MOST_CONVERSATIONS = 1000
MOST_MESSAGES = 40  # kept of a conversation
ROUNDS = 3  # shown to the model, each a question and its answer: its context is small
LONGEST_TEXT = 250  # bytes, which are at most as many tokens

TEMPLATE = [
    ChatMessage.from_system("You are a helpful assistant. Answer in a few sentences."),
    ChatMessage.from_user("{{ query }}"),
]


class BoundedStore(InMemoryChatMessageStore):
    """Keeps the newest messages of the conversations that were used last.

    Haystack's own keeps them all for as long as the process lives, in one dictionary for all stores.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._lock = Lock()  # retrievers and writers run in threads
        self._conversations: OrderedDict[str, list[ChatMessage]] = OrderedDict()  # the one used last is last

    def count_messages(self, chat_history_id: str) -> int:
        return len(self._conversations.get(chat_history_id, ()))

    def write_messages(self, chat_history_id: str, messages: list[ChatMessage]) -> int:
        with self._lock:
            kept = self._conversations.pop(chat_history_id, [])
            self._conversations[chat_history_id] = [*kept, *messages][-MOST_MESSAGES:]
            if len(self._conversations) > MOST_CONVERSATIONS:
                self._conversations.popitem(last=False)
        return len(messages)

    def retrieve_messages(self, chat_history_id: str, last_k: int | None = None) -> list[ChatMessage]:
        with self._lock:
            if messages := self._conversations.get(chat_history_id, []):
                self._conversations.move_to_end(chat_history_id)
        return self._get_last_k_messages(messages, last_k or self.last_k or MOST_MESSAGES)

    def delete_messages(self, chat_history_id: str) -> None:
        with self._lock:
            self._conversations.pop(chat_history_id, None)

    def delete_all_messages(self) -> None:
        with self._lock:
            self._conversations.clear()


@component
class Conversation:
    """Hands the conversation's id to all who need it, as a hash: callers may choose long ones."""

    @component.output_types(id=str)
    def run(self, id: str) -> dict[str, str]:  # noqa: A002 - the name that callers read
        return {"id": sha256(id.encode()).hexdigest()}


@component
class Exchange:
    """Puts the question and the answer in order, cut to what is worth remembering."""

    @component.output_types(messages=list[ChatMessage])
    def run(self, query: str, replies: list[ChatMessage]) -> dict[str, list[ChatMessage]]:
        answer = replies[0].text or "..."  # an answer without text would not end its round
        return {"messages": [ChatMessage.from_user(cut(query)), ChatMessage.from_assistant(cut(answer))]}


def cut(text: str) -> str:
    return text.encode(errors="ignore")[:LONGEST_TEXT].decode(errors="ignore")


def build() -> Pipeline:
    store = BoundedStore()
    pipeline = Pipeline()
    pipeline.add_component("conversation", Conversation())
    pipeline.add_component("prompt_builder", ChatPromptBuilder(TEMPLATE, required_variables="*"))
    pipeline.add_component("retriever", ChatMessageRetriever(store, last_k=ROUNDS))
    pipeline.add_component("llm", SmolLM2ChatGenerator())
    pipeline.add_component("exchange", Exchange())
    pipeline.add_component("writer", ChatMessageWriter(store))
    pipeline.connect("conversation.id", "retriever.chat_history_id")
    pipeline.connect("prompt_builder.prompt", "retriever.current_messages")
    pipeline.connect("retriever.messages", "llm.messages")
    pipeline.connect("llm.replies", "exchange.replies")
    pipeline.connect("conversation.id", "writer.chat_history_id")
    pipeline.connect("exchange.messages", "writer.messages")
    return pipeline
