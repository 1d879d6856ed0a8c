"""Cannot be built."""

from haystack import Pipeline


def build() -> Pipeline:
    raise ValueError("the password is hunter2, in /etc/secret")
