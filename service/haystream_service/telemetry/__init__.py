"""What an operator sees: lines, metrics, traces. Never what users write, and never a secret."""
