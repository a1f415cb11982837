"""Rows of sparse arrays (``jax.experimental.sparse``), loaded when a program uses some.

May import: what :mod:`dualrev.rules` may.  Start reading at :mod:`dualrev.rules.sparse.bcoo`.
"""
