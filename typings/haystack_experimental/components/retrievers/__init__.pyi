from haystack.dataclasses import ChatMessage

from haystack_experimental.chat_message_stores import InMemoryChatMessageStore

class ChatMessageRetriever:
    def __init__(self, chat_message_store: InMemoryChatMessageStore, last_k: int | None = 10) -> None: ...
    def run(
        self,
        chat_history_id: str,
        *,
        last_k: int | None = None,
        current_messages: list[ChatMessage] | None = None,
    ) -> dict[str, list[ChatMessage]]: ...
