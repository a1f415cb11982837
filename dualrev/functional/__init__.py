"""The functional face: public functions with jax's signatures, and what they return.

May import: everything below (``calls``, ``engines``, ``rules``, ``table``, ...).  Start reading at :mod:`dualrev.functional.api`,
then :mod:`dualrev.functional.gradients` and :mod:`dualrev.functional.jacobians`.
"""
