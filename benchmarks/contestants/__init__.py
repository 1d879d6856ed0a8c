"""Everything that streams a pipeline: how each is started, and how it is asked."""
