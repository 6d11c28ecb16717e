"""The embedded default: scenes that the package draws itself, and what is true in them."""
