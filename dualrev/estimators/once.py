"""Values that an outer derivative may not differentiate: an estimate of a second derivative takes independent samples."""

from __future__ import annotations

from collections.abc import Callable

import jax

from dualrev.functional.ruled_functions import Statement, with_rule
from dualrev.linear.maps import Tangent


def first_order_only(call: str) -> Callable[[jax.Array], jax.Array]:
    """The identity, whose derivative says that the estimate of ``call`` is not differentiated again."""
    def refuse(t: Tangent, x: jax.Array) -> Tangent:
        raise NotImplementedError(f"{call}: its estimate is not differentiated again: the same samples would stand twice in a product, "
                                  f"whose mean is not that of a second derivative.  Estimate products with a Hessian by {call} of the "
                                  "push, lambda x: dr.jvp(fun, (x,), (v,))[1]")

    return with_rule(lambda x: x, Statement("pushforward", refuse), ())
