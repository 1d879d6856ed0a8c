"""An Agent with a tool."""

from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.tools.tool import Tool
from haystack.utils import Secret


def sunny(city: str) -> str:
    return f"Sunny in {city}"


def build(api_key: Secret | None = None) -> Agent:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    weather = Tool(name="weather", description="Tells the weather.", parameters=parameters, function=sunny)
    model = OpenAIChatGenerator(api_key or Secret.from_env_var("OPENAI_API_KEY"))
    return Agent(chat_generator=model, tools=[weather])
