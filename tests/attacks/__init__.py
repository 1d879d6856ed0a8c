"""Attacks on a live service and its gateway: bounded in count and time, and on the loopback alone."""
