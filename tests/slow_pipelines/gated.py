"""Takes long to build, like a pipeline that loads a model: until the test's stage lets it go on."""

from haystack import Pipeline

from tests.fakes import AsyncFake, pipeline_of, stage


def build() -> Pipeline:
    stage().waiting.set()
    stage().proceed.wait_in_thread()
    return pipeline_of(AsyncFake())
