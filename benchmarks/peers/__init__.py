"""The peers, a program each, run by the Python of its own environment so that their requirements do not clash."""
