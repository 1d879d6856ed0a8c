"""What a call passes before the servicer sees it: port, encryption, limits, and the question of who calls."""
