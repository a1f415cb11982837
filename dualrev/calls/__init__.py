"""Rows of operations that hold programs: calls, branches, loops, checkpoints, solvers, the rules of other libraries.

These rows alone see the engines, because they differentiate the programs that they hold.
May import: ``engines``, ``rules`` and what they may import.  Start reading at :mod:`dualrev.calls.call_rows`, then
:mod:`dualrev.calls.branch`.
"""
