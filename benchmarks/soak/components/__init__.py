"""Models whose every word is known beforehand. They know Haystack, and no server."""
