"""Rows of matrix operations: factorizations, eigenvalues, singular values, solves, and the algebra they are made of.

May import: what :mod:`dualrev.rules` may.  Start reading at :mod:`dualrev.rules.linalg.factorizations`.
"""
