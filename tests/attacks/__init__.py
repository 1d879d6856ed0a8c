"""Attacks on a live service and its gateway: bounded in count and time, and on the loopback alone.

A module is one kind of attack. What all of them are held to is in `canary`, what is attacked in `target`. Attacks by
identity, with tokens and certificates that are wrong, are to be modules of their own here, with a `target` that asks.
"""
