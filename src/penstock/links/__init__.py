"""Sources and web hooks: what listens to the outside world."""
