"""The nouns and the laws. Deterministic: no I/O, no clock, no randomness of its own."""
