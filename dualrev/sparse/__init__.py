"""Sparse derivatives: patterns by propagation, colouring, compressed evaluation.

May import: ``functional``, ``calls`` and what they may import.  Start reading at :mod:`dualrev.sparse.patterns`, then
:mod:`dualrev.sparse.graph`.
"""
