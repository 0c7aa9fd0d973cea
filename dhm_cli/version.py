"""The version of dhm."""

__version__ = "0.1.0"
