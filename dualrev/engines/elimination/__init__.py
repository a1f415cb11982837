"""Jacobians by elimination on the computational graph: local Jacobians in blocks, vertex after vertex.

It imports the table, linear maps and the reverse engine, whose tape it reads.  Start with ``structure.py``, and ``accumulate.py``.
"""
