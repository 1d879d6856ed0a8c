"""Takes long to build, like a pipeline that loads a model: until the test's stage lets it go on."""

from haystack import Pipeline

from tests.fakes import AsyncFake, pipeline_of, stage


def build() -> Pipeline:
    stage().thread_waiting.set()
    assert stage().thread_proceed.wait(timeout=30)
    return pipeline_of(AsyncFake())
