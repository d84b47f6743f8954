"""The command line: it parses, calls the library and prints; what it does is all in the other rooms."""

from linocut.cli.app import main

__all__ = ["main"]
