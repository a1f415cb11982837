"""The rows: the local linearization of each primitive, stated once; one file for each family of primitives.

Rows state facts: a row names no engine and no mode.
May import: ``table`` and what it may import.  Start reading at :mod:`dualrev.rules.elementwise`.
"""
