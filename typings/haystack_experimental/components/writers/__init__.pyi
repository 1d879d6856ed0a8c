from haystack.dataclasses import ChatMessage

from haystack_experimental.chat_message_stores import InMemoryChatMessageStore

class ChatMessageWriter:
    def __init__(self, chat_message_store: InMemoryChatMessageStore) -> None: ...
    def run(self, chat_history_id: str, messages: list[ChatMessage]) -> dict[str, int]: ...
