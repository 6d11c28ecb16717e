"""Measured claims: each module is a command that prints a ratio against a rival in the same run."""
