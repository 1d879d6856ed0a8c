"""Haystack's edge: the folder of pipelines, what each can do, and the way from its callback to the run's sink."""
