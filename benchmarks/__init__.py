"""Measurements against other libraries, in one process."""
