"""Where instances live: one protocol, one adapter a place."""
