"""Who calls, and what they may. Knows neither gRPC nor Haystack."""
