"""Drawings of a program and of its tape: boxes of operations, grouped, folded when there are many, with heat.

May import: ``functional``, :mod:`dualrev.inspection.pictures` and what is below.  Start reading at
:mod:`dualrev.inspection.drawing.api`; what is drawn is read in :mod:`dualrev.inspection.drawing.reading` and
:mod:`dualrev.inspection.drawing.tapes`.
"""
