"""The one place that imports what is not documented public jax API; a file for each thing that is adapted.

Each name has a comment that says what it is for and what changed in which release, so that a new release of jax is met in this folder.
May import: nothing of dualrev.  Start reading at :mod:`dualrev._jax.traces` and :mod:`dualrev._jax.avals`.
"""
