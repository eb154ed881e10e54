"""The command line: one file per group of commands; they parse, call public functions and print."""

from gloam.cli.main import COMMANDS, main

__all__ = ["COMMANDS", "main"]
