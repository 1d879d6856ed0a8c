"""Components that stand in for models. They know Haystack, and no server."""
