"""Has no build function."""
