"""Rows of ``scan`` and ``while_loop``: what the body's derivative is, what is stored, what is computed again.

May import: what :mod:`dualrev.calls` may.  Start reading at :mod:`dualrev.calls.loops.scan`, then :mod:`dualrev.calls.loops.body`.
"""
