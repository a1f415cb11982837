"""Memory over the course of a derivative: live bytes at each operation of forward and pull, under several checkpoint policies.

May import: ``functional``, :mod:`dualrev.inspection.pictures` and what is below.  Start reading at
:mod:`dualrev.inspection.timeline.api`, then :mod:`dualrev.inspection.timeline.liveness`.
"""
