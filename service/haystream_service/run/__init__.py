"""The way from a pipeline's callback to its readers. Knows neither gRPC nor Haystack."""
