"""Commands over the client."""
