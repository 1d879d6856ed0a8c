"""Tests through the front door: real servers on the loopback, real callers."""

import os

# Haystack reads this when it is imported, and reports to its makers otherwise.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
