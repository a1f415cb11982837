"""Values and cotangents in the middle of a function: read by name (``tap``, ``taps``), and changed on the way back (``intercept``).

A tap is an operation only while :func:`~dualrev.inspection.taps.api.taps` traces a function; at all other times it is nothing at all.
The traced program is evaluated with one more input for each tap, a perturbation whose cotangent is the one asked for, and one more
output, the value.
May import: ``functional`` and what is below.  Start reading at :mod:`dualrev.inspection.taps.api`.
"""
