"""Rows of sparse arrays (``jax.experimental.sparse``), loaded when a program first uses one.

May import: what :mod:`dualrev.rules` may.  Start reading at :mod:`dualrev.rules.sparse.bcoo`.
"""
