"""Linear maps and what they act on: tapes, sums, compositions, matrices; symbolic zeros, products, bases.

Nothing here knows of primitives or of the table.
May import: ``_jax``, ``errors``, ``options``.  Start reading at :mod:`dualrev.linear.maps`.
"""
