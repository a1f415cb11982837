"""The commands ``python -m dualrev <word> module:function``.

Each is a file with a function ``run(words)``, which returns the exit status.

May import: ``inspection``, ``report`` and what is below.  Start reading at ``dualrev/__main__.py``, whose table names them.
"""
