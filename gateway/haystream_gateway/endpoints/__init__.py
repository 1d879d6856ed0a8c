"""The addresses of the gateway, by what they are for."""
