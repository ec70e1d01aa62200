"""What should change: pure functions and values; no clock, socket, file, log or global randomness."""
