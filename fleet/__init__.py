"""SWE Fleet: an autonomous software-engineering team on its owner's own Ray cluster."""

__version__ = "0.1.0"
__all__ = ["__version__"]
