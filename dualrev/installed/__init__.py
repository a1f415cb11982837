"""Dualrev's transforms in place of jax's, for whole programs and the libraries that they use.

May import: ``functional`` and what it may import.  Start reading at :mod:`dualrev.installed.replacing`.
"""
