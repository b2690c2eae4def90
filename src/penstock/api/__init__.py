"""HTTP, thin: parse, call the engine, answer."""
