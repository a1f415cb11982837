"""What the other rooms stand on: dtypes and devices, a thread's modes, hook handles, caches, and how an operation is stated.

May import: nothing of the other rooms; of the package ``_jax``, ``errors``, ``options`` and ``calls``.  Start reading at
:mod:`dualrev.eager.core.operation`: an operation is a jax function, and its :class:`Record` holds the pull from the rule table.
"""
