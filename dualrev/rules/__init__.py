"""The rows: for each primitive its local linearization, stated once; one file for each family.

Only facts stand here: a row names no engine and no mode.
May import: ``table`` and what it may import.  Start reading at :mod:`dualrev.rules.elementwise`.
"""
