"""Jacobians by elimination on the computational graph: local Jacobians in blocks, multiplied vertex after vertex.

May import: the table and linear maps.  Start reading at ``structure.py``, and then ``accumulate.py``.
"""
