"""The functions of ``torch.nn.functional``, one module for each kind.

May import: ``core``, ``graph`` and ``ops``; nothing else of ``nn``.  Start reading at :mod:`dualrev.eager.nn.functions.linear`.
"""
