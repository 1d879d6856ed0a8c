"""A door, an actor behind it and an audience, on an AsyncPipeline."""

from haystack import AsyncPipeline

from tests.generations.parts import Actor, Audience, Door


def build() -> AsyncPipeline:
    pipeline = AsyncPipeline()
    pipeline.add_component("door", Door())
    pipeline.add_component("actor", Actor())
    pipeline.add_component("audience", Audience())
    pipeline.connect("door.query", "actor.query")
    pipeline.connect("actor.replies", "audience.replies")
    return pipeline
