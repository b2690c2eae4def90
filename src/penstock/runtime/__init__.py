"""What runs inside an instance. Standard library only, Python 3.10 or newer."""
