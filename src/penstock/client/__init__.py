"""Requests as data; one sync and one async sender over them."""
