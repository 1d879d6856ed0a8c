"""A generator that only knows threads."""

from haystack import Pipeline

from tests.fakes import SyncFake, pipeline_of


def build() -> Pipeline:
    return pipeline_of(SyncFake())
