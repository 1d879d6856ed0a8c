"""The Haystream gateway: the service's streams as server-sent events, for browsers. Knows the contract only."""
