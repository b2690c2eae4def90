"""Durable state: one protocol, one adapter a database."""
