"""Layouts on disk; each module in `files.FORMATS` has `recognises`, `read` and `write`."""
