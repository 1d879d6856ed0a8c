"""The Haystream service: Haystack pipelines, streamed over gRPC."""
