"""Step 2, its derivative, stated once.

The convolution is a product: for a fixed y it is linear in x, for a fixed x it is linear in y.  So a push needs no formula, it is the
operation itself:

    ∂(x ∗ y) · (t, s)  =  t ∗ y  +  x ∗ s

What is left to state is the adjoint for each of the two operands, the way back.  With ȳ[i] = y[-i],

    ⟨ct, x ∗ y⟩  =  Σₖ ct[k] Σᵢ x[i] y[k - i]  =  Σᵢ x[i] Σₖ ct[k] ȳ[i - k]  =  ⟨x, ct ∗ ȳ⟩

and the same with x and y exchanged, as the product commutes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

import dualrev as dr
from papers.ops.circular import circular, circular_p


def turned(y: jax.Array) -> jax.Array:
    """``y[-i]``, indices modulo n."""
    return jnp.roll(jnp.flip(y, -1), 1, -1)


dr.rule(circular_p, bilinear=[
    lambda ct, _x, y: circular(ct, turned(y)),  # the cotangent of x
    lambda ct, x, _y: circular(ct, turned(x)),  # the cotangent of y
])
