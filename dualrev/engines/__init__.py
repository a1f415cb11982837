"""Engines: what each differentiation mode does with the table's local linearizations.

An engine names no primitive.
May import: ``table`` and what it may import.  Start reading at :mod:`dualrev.engines.forward`, then :mod:`dualrev.engines.reverse`.
"""
