"""The processes that are measured, and the provider behind them. Each prints its port as its first line."""
