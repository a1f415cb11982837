"""Programs that take the entries of arrays one by one, in Python, as programs of arrays: operations that are alike become one.

May import: what stands below the programs, and ``programs`` beside it.  Start reading at ``together.py``.
"""
