"""Engines: what each differentiation mode does with the table's local linearizations.

An engine names no primitive: it asks the table for the row of an operation.
May import: ``table`` and what it may import.  Start reading at :mod:`dualrev.engines.base`, then
:mod:`dualrev.engines.parts`, :mod:`dualrev.engines.forward` and :mod:`dualrev.engines.reverse`.
"""
