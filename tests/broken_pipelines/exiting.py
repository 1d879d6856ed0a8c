"""Ends the process, as a script would."""

import sys

sys.exit("MY_KEY is not set")
