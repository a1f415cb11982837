"""What the other rooms stand on: dtypes and devices, a thread's modes, hook handles, caches, and how an operation is stated.

Imports nothing of the other rooms; of the package, the engines that derive an operation's pull.
Start with ``operation.py``: an operation is a jax function, its derivative a :class:`Record` of the rule table.
"""
