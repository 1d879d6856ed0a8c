"""Builds the wrong thing."""


def build() -> str:
    return "not a pipeline"
