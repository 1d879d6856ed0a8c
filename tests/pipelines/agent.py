"""An Agent whose model runs on the loop."""

from haystack.components.agents import Agent

from tests.fakes import AsyncChatFake, agent_of


def build() -> Agent:
    return agent_of(AsyncChatFake())
