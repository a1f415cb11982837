"""Where a NaN or an infinity came from: the operation, in the function or its derivative, the line, the values that went in.

Nothing here runs unless it is asked: the results of a compiled program are looked at, and only where one is not finite is the program
taken apart.
May import: ``functional`` and what it may import.  Start reading at :mod:`dualrev.inspection.finiteness.where_nan`, then
:mod:`dualrev.inspection.finiteness.search`.
"""
