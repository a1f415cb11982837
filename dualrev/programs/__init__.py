"""Traced programs (jaxprs): evaluating them, splitting them in two, and choosing what to store.

Nothing here knows of derivatives.
May import: ``_jax``, ``errors``, ``options``, ``linear``.  Start reading at :mod:`dualrev.programs.jaxprs`.
"""
