"""Bundles of code, and where they lie."""
