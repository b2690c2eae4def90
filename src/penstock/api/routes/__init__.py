"""What is not hot: FastAPI routes, a file for each kind of thing."""
