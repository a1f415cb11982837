"""Rows of matrix operations: factorizations, eigenvalues, singular values, solves, and the matrix algebra that they use.

May import: what :mod:`dualrev.rules` may.  Start reading at :mod:`dualrev.rules.linalg.factorizations`.
"""
