"""Stands for the package safetensors, which is compiled and not there for browsers: NumPy arrays only."""

__version__ = "0.4.3"


class SafetensorError(Exception):
    """A file that is not in the format."""
