"""The loops that join admission, the store and instances, a file each."""
