"""The functions of ``torch.nn.functional``, one module for each kind.

Imports ``core``, ``graph`` and ``ops``, and of ``nn`` nothing but other modules of this folder.  Start with ``linear.py``.
"""
