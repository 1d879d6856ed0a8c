"""The soak: a service and a gateway under all that callers, providers, files and operators do to them, for minutes."""
