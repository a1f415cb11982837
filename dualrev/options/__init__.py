"""The options of the public functions, and checkpoint schedules.

May import: :mod:`dualrev._jax`.  Start reading at :mod:`dualrev.options.settings`.
"""
