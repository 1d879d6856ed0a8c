"""What the test's stage says."""

from haystack import Pipeline

from tests.fakes import AsyncFake, pipeline_of


def build() -> Pipeline:
    return pipeline_of(AsyncFake())
