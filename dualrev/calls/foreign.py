"""One row for all primitives of other libraries: the derivative that a library registered with jax for a primitive of its own.

Such a rule is a user's, like that of a ``jax.custom_jvp`` function: in ``jax.interpreters.ad`` a library states the derivative of an
operation that jax does not have.  Rules that jax itself registered there are never read.  A row of the table comes first, also one that
a user states with :func:`dualrev.rule`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev import errors
from dualrev._jax.avals import ShapedArray, abstract_outputs, cotangent_aval, is_differentiable, tangent_aval, typeof
from dualrev._jax.custom_rules import SymbolicZero, Zero
from dualrev._jax.libraries import ForeignRules, foreign_rules
from dualrev._jax.primitives import Params, Primitive
from dualrev.engines.custom_derivatives import linearize_push
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangents
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active, current
from dualrev.table.rows import Operand, Row, Unknown, aval_of, others


class ForeignRow(Row):
    """A primitive whose derivative another library registered.

    Forward mode calls the registered JVP, with symbolic zeros.  Reverse mode runs it (or the registered linearization) on unknown
    tangents and records a tape; where the JVP applies a foreign primitive to a tangent, the pull calls the registered transpose.
    """

    form = "registered"

    def __init__(self, primitive: Primitive, rules: ForeignRules):
        super().__init__(primitive)
        self.rules = rules

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
            params: Params) -> tuple[list[jax.Array], Sequence[Tangent]]:
        if not current.get().zero_wins:
            return self.pushed(False, primals, tangents, params)
        # The products inside the rule are those of its tape.
        outs, tape, _ = self.linearize(primals, tuple([t is not None for t in tangents]), params, False)
        return outs, tape.push(*[t for t in tangents if t is not None])  # type: ignore[return-value]  # no output is unknown

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                  is_linear: bool) -> tuple[list[Operand], LinearMap, Sequence[bool]]:
        if not is_linear:
            return linearize_push(lambda xs, ts: self.pushed(True, xs, ts, params), primals, active)
        avals = [aval_of(x) for x in primals]
        out_avals = abstract_outputs(self.primitive, avals, params)
        use = LinearUse(self, tuple([aval if flag else None for aval, flag in zip(avals, active, strict=True)]),
                        tuple(out_avals), params)
        fixed = [x for x in primals if not isinstance(x, Unknown)]
        return [Unknown(aval) for aval in out_avals], ForeignMap(use, fixed), [True] * len(out_avals)

    def pushed(self, may_linearize: bool, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
               params: Params) -> tuple[list[jax.Array], list[Tangent]]:
        """Outputs and their tangents, by the registered JVP or the registered linearization."""
        given = tuple([_to_rule(t, tangent_aval(typeof(x))) for x, t in zip(primals, tangents, strict=True)])
        jvp, linearization = self.rules.jvp, self.rules.linearization
        if linearization is not None and (may_linearize or jvp is None):
            nonzero = [type(t) is not Zero for t in given]
            # Since 0.11 residuals that are a tree follow those that are a list.
            outs, _, *residuals, linearized = linearization(True, nonzero, *primals, **params)
            outs_t = linearized(*residuals, *given)
        elif jvp is not None:
            outs, outs_t = jvp(tuple(primals), given, **params)
        else:
            raise errors.no_registered_jvp(self.primitive)
        many = self.primitive.multiple_results
        outs, outs_t = (list(outs), list(outs_t)) if many else ([outs], [outs_t])
        if len(outs) != len(outs_t):
            raise errors.RuleError(f"the registered JVP of {errors.whose(self.primitive)} returns {len(outs)} outputs and "
                                   f"{len(outs_t)} tangents; expected one tangent for each output, jax.interpreters.ad.Zero where it "
                                   "is zero")
        avals = [typeof(out) for out in outs]
        return outs, [self._checked("JVP", "tangent of output", i, t, tangent_aval(aval)) if is_differentiable(aval) else None
                      for i, (aval, t) in enumerate(zip(avals, outs_t, strict=True))]

    def transposed(self, use: LinearUse, operands: Sequence[jax.Array | None], cotangents: Tangents) -> list[Tangent]:
        """The cotangents of all operands, by the registered transpose."""
        cts: Any = [_to_rule(ct, cotangent_aval(aval)) for ct, aval in zip(cotangents, use.out_avals, strict=True)]
        cts = cts if self.primitive.multiple_results else cts[0]
        linear = [None if aval is None else cotangent_aval(aval) for aval in use.linear]
        if self.rules.fancy_transpose is not None:
            given: list[Any] = [x if a is None else self.rules.accumulator(a) for x, a in zip(operands, linear, strict=True)]
            self.rules.fancy_transpose(cts, *given, **use.params)
            pulled: list[Any] = [None if a is None else x.freeze() for x, a in zip(given, linear, strict=True)]
        elif self.rules.transpose is not None:
            given = [x if a is None else self.rules.undefined(a) for x, a in zip(operands, linear, strict=True)]
            result = self.rules.transpose(cts, *given, **use.params)
            pulled = [None] * len(given) if result is Zero else list(result)
        else:
            raise errors.no_registered_transpose(self.primitive)
        if len(pulled) != len(given):
            raise errors.RuleError(f"the registered transpose of {errors.whose(self.primitive)} returns {len(pulled)} cotangents; "
                                   f"expected {len(given)}, one for each operand, and None for those that are no UndefinedPrimal")
        return [None if a is None else self._checked("transpose", "cotangent of operand", i, ct, a)
                for i, (ct, a) in enumerate(zip(pulled, linear, strict=True))]

    def _checked(self, rule: str, what: str, i: int, t: Tangent | Zero | SymbolicZero, aval: ShapedArray) -> Tangent:
        """A tangent or cotangent from a rule, None where it is zero."""
        if t is None or t is Zero or isinstance(t, (Zero, SymbolicZero)):  # type: ignore[comparison-overlap]  # some return the class
            return None
        t = zeros.drop_float0(t)
        if t is not None and ((found := typeof(t)).shape != aval.shape or found.dtype != aval.dtype):
            raise errors.RuleError(f"the registered {rule} of {errors.whose(self.primitive)} gives a {what} {i} of type "
                                   f"{found.dtype.name}{list(found.shape)}; expected {aval.dtype.name}{list(aval.shape)}")
        return t


def _to_rule(t: Tangent, aval: ShapedArray) -> jax.Array | Zero:
    """A tangent or cotangent as a registered rule expects it: a jax array, or a symbolic zero with its abstract value."""
    if t is None:
        return Zero(aval)
    return jnp.asarray(t) if isinstance(t, (np.ndarray, np.generic)) else t


class LinearUse:
    """The static facts of one use of a foreign primitive in a linear program.

    For each operand its abstract value, or None if it is known; the abstract values of the outputs; and the parameters.
    """

    __slots__ = ("key", "linear", "out_avals", "params", "row")

    def __init__(self, row: ForeignRow, linear: tuple[ShapedArray | None, ...], out_avals: tuple[ShapedArray, ...], params: Params):
        self.row, self.linear, self.out_avals, self.params = row, linear, out_avals, params
        self.key: Hashable = (row.primitive, linear, out_avals, tuple(params.items()))
        try:
            hash(self.key)
        except TypeError:  # a parameter that cannot be hashed: equal to itself alone
            self.key = id(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinearUse) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class ForeignMap(LinearMap):
    """A foreign primitive that is linear in some operands: the primitive itself pushes, its registered transpose pulls.

    Without a registered transpose, a pull is an error.
    """

    __slots__ = ("fixed", "use")

    def __init__(self, use: LinearUse, fixed: Sequence[jax.Array]):
        self.use = use
        self.fixed = fixed

    @property
    def name(self) -> str:  # type: ignore[override]
        return str(self.use.row.primitive)

    def operands(self, linear: Sequence[Tangent]) -> list[jax.Array | None]:
        """All operands, from those that the operation is linear in."""
        known, given = iter(self.fixed), iter(linear)
        return [next(known) if aval is None else next(given) for aval in self.use.linear]

    def push(self, *tangents: Tangent) -> Tangents:
        avals = [aval for aval in self.use.linear if aval is not None]
        filled = [zeros.zeros_of(aval) if t is None else t for t, aval in zip(tangents, avals, strict=True)]
        outs = self.use.row.bind(self.operands(filled), self.use.params)  # type: ignore[arg-type]
        return tuple([out if is_differentiable(aval) else None for out, aval in zip(outs, self.use.out_avals, strict=True)])

    def pull(self, *cotangents: Tangent) -> Tangents:
        nothing = [None] * sum(aval is not None for aval in self.use.linear)
        cts = self.use.row.transposed(self.use, self.operands(nothing), cotangents)
        return tuple([ct for ct, aval in zip(cts, self.use.linear, strict=True) if aval is not None])


jax.tree_util.register_pytree_node(ForeignMap, lambda m: ((m.fixed,), m.use), lambda use, fixed: ForeignMap(use, fixed[0]))


def row_for(primitive: Primitive) -> ForeignRow | None:
    """The row of a primitive for which another library registered a derivative, or None."""
    rules = foreign_rules(primitive)
    if rules is None or not any(rules[:4]):
        return None
    known = _rows.get(primitive)
    if known is None or known.rules != rules:
        known = _rows[primitive] = ForeignRow(primitive, rules)
    return known


_rows: dict[Primitive, ForeignRow] = {}
others.append(row_for)
