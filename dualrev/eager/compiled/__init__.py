"""Compiled programs: a whole step (``torch.jit``), and backward passes of graphs that recur.

Imports ``core`` and ``graph``.  Start with ``step.py``; ``watching.py`` notes what a step reads and writes, ``guards.py`` what Python
decides by, and ``backward_programs.py`` replaces a backward pass by a program.  The folder is not called ``jit``: that is the function.
"""
