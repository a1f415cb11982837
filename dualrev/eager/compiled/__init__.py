"""Compiled programs: a whole step (``torch.jit``), and backward passes of graphs that recur.  (``jit`` is the name of the function.)

May import: ``core`` and ``graph``.  Start reading at :mod:`dualrev.eager.compiled.step`; ``watching`` notes what a step reads and
writes, ``guards`` what Python decides by, and ``backward_programs`` replaces a backward pass by a program.
"""
