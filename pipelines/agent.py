"""An Agent with a calculator and a clock; without an OpenAI key its model is a script that calls the same tools."""

import ast
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated
from zoneinfo import ZoneInfo

from haystack.components.agents import Agent
from haystack.components.generators.chat import MockChatGenerator, OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, ChatRole, ToolCall, ToolCallResult
from haystack.tools import tool  # pyright: ignore[reportUnknownVariableType] - it takes bare Callables
from haystack.utils import Secret

LONGEST_QUESTION = 2000
LONGEST_EXPRESSION = 200

# Decimal counts to 28 digits and refuses larger powers: no expression keeps the event loop busy.
OPERATIONS: dict[type[ast.operator], Callable[[Decimal, Decimal], Decimal]] = {
    ast.Add: Decimal.__add__,
    ast.Sub: Decimal.__sub__,
    ast.Mult: Decimal.__mul__,
    ast.Div: Decimal.__truediv__,
    ast.Pow: Decimal.__pow__,
}

NUMBER = r"[-(]{0,9}\d+(?:\.\d+)?\)*"
ARITHMETIC = re.compile(rf"(?<![\d.,]){NUMBER}(?: *[-+*/]+ *{NUMBER})+", re.ASCII)
TIME_ZONE = re.compile(r"\b[A-Z]\w+(?:/\w+)+", re.ASCII)


# Tools that are coroutines run on the event loop; functions would take a thread each.
@tool
async def calculator(expression: Annotated[str, "such as 12 * (7 - 2) ** 2"]) -> str:
    """Calculate with numbers, brackets and + - * / **."""
    if len(expression) > LONGEST_EXPRESSION:
        raise ValueError("the expression is too long")
    try:
        return str(value_of(ast.parse(expression, mode="eval").body))
    except (ArithmeticError, SyntaxError):
        raise ValueError("the expression has no value, or too large a one") from None


@tool
async def clock(time_zone: Annotated[str, "a name of the IANA database, such as Europe/Rome"]) -> str:
    """Tell the date and the time in a time zone."""
    try:
        return f"{datetime.now(ZoneInfo(time_zone)):%A, %d %B %Y, %H:%M}"
    except (KeyError, ValueError, OSError):  # some of these name a path
        raise ValueError("there is no such time zone") from None


def value_of(node: ast.expr) -> Decimal:
    """Return what an expression comes to. Raises ValueError or ArithmeticError."""
    match node:
        case ast.Constant(int() | float() as number):
            return Decimal(str(number))
        case ast.UnaryOp(ast.USub(), operand):
            return -value_of(operand)
        case ast.BinOp(left, operation, right) if type(operation) in OPERATIONS:
            return OPERATIONS[type(operation)](value_of(left), value_of(right))
        case _:
            raise ValueError("this is more than arithmetic")


def script(messages: list[ChatMessage]) -> ChatMessage:
    """Do what a model does: call the tool that fits the newest question, then tell what came of it."""
    if result := messages[-1].tool_call_result:
        return ChatMessage.from_assistant(in_words(result))
    questions = (message.text or "" for message in reversed(messages) if message.is_from(ChatRole.USER))
    question = next(questions, "")[:LONGEST_QUESTION]
    call_id = f"call-{len(messages)}"
    if found := ARITHMETIC.search(question):
        call = ToolCall("calculator", {"expression": found[0]}, call_id)
    else:
        found = TIME_ZONE.search(question)
        call = ToolCall("clock", {"time_zone": found[0] if found else "UTC"}, call_id)
    return ChatMessage.from_assistant(tool_calls=[call])


def in_words(result: ToolCallResult) -> str:
    """Tell what a tool has answered, or why it could not."""
    call, answer = result.origin, str(result.result).rpartition("Error: ")[2]
    asked = ", ".join(map(str, call.arguments.values()))
    return f"For {asked} the {call.tool_name} says: {answer}."


def build(api_key: Secret | None = None) -> Agent:
    key = api_key or Secret.from_env_var("OPENAI_API_KEY", strict=False)
    usage = {"stream_options": {"include_usage": True}}
    return Agent(
        chat_generator=OpenAIChatGenerator(key, generation_kwargs=usage)
        if key.resolve_value()
        else MockChatGenerator(response_fn=script),
        tools=[calculator, clock],
        system_prompt="Calculate with the calculator, and take the date and the time from the clock.",
        max_agent_steps=10,
    )
