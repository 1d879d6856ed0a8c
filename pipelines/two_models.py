"""Two generators side by side answer the same question, one tersely and one at length."""

from haystack import Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.dataclasses import ChatMessage

from haystream_service.local_model import SmolLM2ChatGenerator

# Each piece of text bears its component's name; a request can choose one of them by `streaming_components`.
MANNERS = {
    "terse": "Answer in one short sentence.",
    "chatty": "Answer at length, in a friendly tone, and give an example.",
}


def build() -> Pipeline:
    pipeline = Pipeline()
    for name, manner in MANNERS.items():
        template = [ChatMessage.from_system(manner), ChatMessage.from_user("{{ query }}")]
        pipeline.add_component(f"{name}_prompt", ChatPromptBuilder(template, required_variables="*"))
        pipeline.add_component(name, SmolLM2ChatGenerator())
        pipeline.connect(f"{name}_prompt.prompt", f"{name}.messages")
    return pipeline
