"""Tensors of files that torch saved, read without torch and without running what is inside."""
