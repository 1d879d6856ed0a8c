"""A generator with `run_async` that wants a sync callback."""

from haystack import Pipeline

from tests.fakes import ThreadedAsyncFake, pipeline_of


def build() -> Pipeline:
    return pipeline_of(ThreadedAsyncFake())
