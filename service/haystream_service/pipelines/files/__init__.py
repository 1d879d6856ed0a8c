"""Pipelines' files: found in their folder, read, and what their owners say in them beside the pipeline itself."""
