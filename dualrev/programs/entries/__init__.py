"""Programs that take the entries of arrays one by one, in Python, as programs of arrays: operations that are alike become one.

Chains of equal blocks of operations become loops (``rolled.py``).

May import: what stands below the programs, and ``programs`` beside it.  Start reading at ``together.py``.
"""
