"""The command line: one job a command, each with --help."""

from imagebart.cli.main import main

__all__ = ["main"]
