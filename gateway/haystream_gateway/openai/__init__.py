"""OpenAI's dialect: its requests, chunks, completions and errors. Knows pipelines only as models."""
