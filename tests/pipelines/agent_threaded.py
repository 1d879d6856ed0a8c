"""An Agent whose model only knows threads."""

from haystack.components.agents import Agent

from tests.fakes import SyncChatFake, agent_of


def build() -> Agent:
    return agent_of(SyncChatFake())
