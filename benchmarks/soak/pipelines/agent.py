"""An Agent that asks a tool before it counts."""

from typing import Annotated

from haystack.components.agents import Agent
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage, ChatRole, ToolCall
from haystack.tools import tool  # pyright: ignore[reportUnknownVariableType] - it takes bare Callables

from benchmarks.soak.order import Order


@tool
async def measure(words: Annotated[int, "how many words there are to be"]) -> str:
    """Measure an order."""
    return f"{words} words"


def script(messages: list[ChatMessage]) -> ChatMessage:
    question = next(message.text for message in reversed(messages) if message.is_from(ChatRole.USER))
    order = Order.of(question or "{}")
    if messages[-1].tool_call_result:
        return ChatMessage.from_assistant(order.text())
    return ChatMessage.from_assistant(tool_calls=[ToolCall("measure", {"words": order.words}, "call-1")])


def build() -> Agent:
    return Agent(chat_generator=MockChatGenerator(response_fn=script), tools=[measure], max_agent_steps=3)
