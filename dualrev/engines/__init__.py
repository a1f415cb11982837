"""Engines: what each differentiation mode does with the table's local linearizations."""
