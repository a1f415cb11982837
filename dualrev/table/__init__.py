"""The rows of the table: their interface, the forms in which they are stated, and the search for the row of a primitive.

The rows themselves are in :mod:`dualrev.rules` and, for operations that hold programs, in :mod:`dualrev.calls`.
May import: ``_jax``, ``errors``, ``options``, ``linear``, ``programs``.  Start reading at :mod:`dualrev.table.rows` (what a row
says), then :mod:`dualrev.table.forms` (how one is stated) and :mod:`dualrev.table.operations` (what one use of an operation keeps).
"""
