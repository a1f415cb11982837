"""What a caller asks of the engines: the options of the public functions, and checkpoint schedules.

May import: :mod:`dualrev._jax`.  Start reading at :mod:`dualrev.options.settings`.
"""
