"""What the command ``python -m dualrev`` measures and prints.

May import: the public package.  Start reading at :mod:`dualrev.report.measure`.
"""
