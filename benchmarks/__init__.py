"""Measures Haystream beside everything else that streams Haystack, in one run on one machine."""
