"""Colourings of matrices: greedy ones, what can be recovered from them, and the search for the cheapest.

May import: numpy, and scipy inside functions; nothing else of the package.  Start reading at
:mod:`dualrev.sparse.colouring.greedy`, then :mod:`dualrev.sparse.colouring.search`.
"""
