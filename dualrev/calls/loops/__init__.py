"""Rows of ``scan`` and ``while_loop``: the derivative of the body, the residuals that are stored, those that are recomputed.

May import: what :mod:`dualrev.calls` may.  Start reading at :mod:`dualrev.calls.loops.scan`, then :mod:`dualrev.calls.loops.body`.
"""
