"""Commands over the client. Only `up` reaches the server's own code.

Every command answers on stdout, talks on stderr, and ends with one of the exit codes of `exits`.
"""
