"""What the rule table takes for granted about jax: operand order, parameter names, fields of dimension numbers, hooks.

None of it is documented.  A release of jax that changes it should fail here, where the message says what changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.experimental.sparse
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, Case
from jax import lax

import dualrev.calls.families  # noqa: F401  (fills the table)
from dualrev._jax import calls, jaxprs
from dualrev.table.adjoints import LinearRow
from dualrev.table.choosing import ChoosingRow
from dualrev.table.operations import Reader
from dualrev.table.partials import ElementwiseRow
from dualrev.table.rows import Row, row_of


def equations(jaxpr: Any) -> Iterator[Any]:
    """The equations of a jaxpr, and of those inside it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree_util.tree_leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def equation_of(name: str, fun: Any, *args: Any) -> Any:
    """The first equation of a primitive in a traced function."""
    found = [eqn for eqn in equations(jax.make_jaxpr(fun)(*args).jaxpr) if str(eqn.primitive) == name]
    assert found, f"{fun} no longer uses {name}"
    return found[0]


def readers(row: Row) -> list[Reader]:
    """The functions of a row."""
    found: list[Reader] = []
    for value in vars(row).values():
        found.extend(v for v in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(v, Reader))
    return found


FIRST_CASES = list({case.primitive: case for case in reversed(CASES)}.values())


@pytest.mark.parametrize("case", FIRST_CASES, ids=[case.primitive for case in FIRST_CASES])
def test_rows_read_what_exists(case: Case) -> None:
    """Each parameter that a row names, each operand that it counts on, is one that the primitive has."""
    rng = np.random.default_rng(0)
    args = [jnp.asarray(maker(rng, jnp.dtype(case.dtypes[0]))) for maker in case.makers]
    eqn = equation_of(case.primitive, case.fun, *args)
    found = row_of(eqn.primitive, "forward")
    for row in found.options if isinstance(found, ChoosingRow) else (found,):
        for reader in readers(row):
            missing = set(reader.params) - set(eqn.params)
            assert not missing, f"{row.where} reads parameters {sorted(missing)}; {case.primitive} has {sorted(eqn.params)}"
            assert all(i < len(eqn.invars) for i in reader.positions), f"{row.where} reads more operands than {len(eqn.invars)}"
        if isinstance(row, ElementwiseRow):
            assert len(row.stated) == len(eqn.invars)
        if isinstance(row, LinearRow) and not row.together:
            assert len(row.adjoints) <= len(eqn.invars)
    assert eqn.primitive.multiple_results or len(eqn.outvars) == 1


def shapes(variables: Any) -> list[tuple[int, ...]]:
    return [v.aval.shape for v in variables]


def test_indexing() -> None:
    """Operand first, then indices, then updates; the fields that turn a gather into its scatter and back."""
    x, i = jnp.arange(12.0).reshape(4, 3), jnp.array([2, 0, 1, 0, 3])
    how = {"dimension_numbers", "indices_are_sorted", "unique_indices", "mode"}
    gather = equation_of("gather", lambda x: x[i], x)
    assert shapes(gather.invars) == [(4, 3), (5, 1)]
    assert set(gather.params) == how | {"slice_sizes", "fill_value"}
    assert gather.params["dimension_numbers"]._fields == (
        "offset_dims", "collapsed_slice_dims", "start_index_map", "operand_batching_dims", "start_indices_batching_dims")
    for method, name in (("set", "scatter"), ("add", "scatter-add"), ("subtract", "scatter-sub"), ("multiply", "scatter-mul"),
                         ("min", "scatter-min"), ("max", "scatter-max")):
        scatter = equation_of(name, lambda x, u, m=method: getattr(x.at[i], m)(u), x, jnp.ones((5, 3)))
        assert shapes(scatter.invars) == [(4, 3), (5, 1), (5, 3)]
        assert set(scatter.params) == how | {"update_jaxpr", "update_consts"}
    assert list(inspect.signature(lax.ScatterDimensionNumbers).parameters) == [
        "update_window_dims", "inserted_window_dims", "scatter_dims_to_operand_dims", "operand_batching_dims",
        "scatter_indices_batching_dims"]
    assert {mode.name for mode in lax.GatherScatterMode} == {"CLIP", "FILL_OR_DROP", "PROMISE_IN_BOUNDS", "ONE_HOT"}


def test_dynamic_slices() -> None:
    x, u = jnp.zeros((4, 3)), jnp.zeros((2, 1))
    eqn = equation_of("dynamic_slice", lambda x, i: lax.dynamic_slice(x, (i, 0), (2, 1)), x, 1)
    assert shapes(eqn.invars) == [(4, 3), (), ()] and eqn.params == {"slice_sizes": (2, 1)}
    eqn = equation_of("dynamic_update_slice", lambda x, u, i: lax.dynamic_update_slice(x, u, (i, 0)), x, u, 1)
    assert shapes(eqn.invars) == [(4, 3), (2, 1), (), ()] and eqn.params == {}


def test_dynamic_slices_clamp_alike() -> None:
    x = jnp.arange(5.0)
    for start in (-9, -1, 0, 2, 4, 7):
        piece = lax.dynamic_slice_p.bind(x, jnp.int32(start), slice_sizes=(2,))
        np.testing.assert_array_equal(lax.dynamic_update_slice_p.bind(x, piece, jnp.int32(start)), x)


def test_sorting() -> None:
    """One result for each operand, keys first; indices second."""
    eqn = equation_of("sort", lambda x: lax.sort((x, x, x), num_keys=2), jnp.zeros(3))
    assert set(eqn.params) == {"dimension", "is_stable", "num_keys"} and len(eqn.invars) == len(eqn.outvars) == 3
    eqn = equation_of("top_k", lambda x: lax.top_k(x, 2), jnp.zeros((3, 4)))
    assert eqn.params["axis"] == 1
    assert [v.aval.dtype.kind for v in eqn.outvars] == ["f", "i"] and shapes(eqn.outvars) == [(3, 2), (3, 2)]


def test_select_and_clamp() -> None:
    """``select_n(which, *cases)`` and ``clamp(low, x, high)``."""
    eqn = equation_of("select_n", lambda w, x, y: lax.select_n(w, x, y), jnp.array(True), 1.0, 2.0)
    assert eqn.invars[0].aval.dtype == jnp.bool_ and not eqn.params
    assert float(lax.select_n_p.bind(jnp.array(True), jnp.array(1.0), jnp.array(2.0))) == 2.0
    assert float(lax.clamp_p.bind(jnp.array(0.0), jnp.array(5.0), jnp.array(1.0))) == 1.0


def test_pad_and_slice() -> None:
    eqn = equation_of("pad", lambda x, v: lax.pad(x, v, [(1, -1, 2)]), jnp.zeros(3), 0.0)
    assert shapes(eqn.invars) == [(3,), ()] and eqn.params["padding_config"] == ((1, -1, 2),)
    eqn = equation_of("slice", lambda x: lax.slice(x, (0,), (2,)), jnp.zeros(3))
    assert eqn.params == {"start_indices": (0,), "limit_indices": (2,), "strides": None}


def test_contractions() -> None:
    """``((contracted), (batch))``, each for both operands; the output has batch, then left, then right dimensions."""
    numbers = (((3,), (1,)), ((0,), (0,)))
    eqn = equation_of("dot_general", lambda x, y: lax.dot_general(x, y, numbers), jnp.zeros((2, 3, 5, 4)), jnp.zeros((2, 4, 6)))
    assert eqn.params["dimension_numbers"] == numbers and shapes(eqn.outvars) == [(2, 3, 5, 6)]
    assert {"precision", "preferred_element_type"} <= set(eqn.params)
    assert lax.ConvDimensionNumbers._fields == ("lhs_spec", "rhs_spec", "out_spec")


def test_jit() -> None:
    """Everything that :func:`dualrev._jax.calls.bind_jit` carries over, and nothing that it does not know."""
    eqn = equation_of("jit", jax.jit(lambda x: x + 1), 1.0)
    assert set(eqn.params) == {
        "jaxpr", "name", "inline", "in_shardings", "out_shardings", "in_layouts", "out_layouts", "donated_invars", "keep_unused",
        "ctx_mesh", "compiler_options_kvs"}
    assert not calls.is_inlined(eqn.params) and not calls.has_explicit_layout(eqn.params)


def test_scan() -> None:
    """Operands are constants, carry, inputs; results are carry, outputs."""
    x, c = jnp.zeros((5, 2)), jnp.zeros(3)
    eqn = equation_of("scan", lambda c, k, x: lax.scan(lambda c, x: (c * k[0], x.sum()), c, x), c, jnp.zeros(7), x)
    assert calls.scan_layout(eqn.params) == (1, 1)
    assert shapes(eqn.invars) == [(7,), (3,), (5, 2)] and shapes(eqn.outvars) == [(3,), (5,)]
    assert (eqn.params["length"], eqn.params["reverse"], eqn.params["unroll"]) == (5, False, 1)
    assert shapes(eqn.params["jaxpr"].jaxpr.invars) == [(7,), (3,), (2,)]


def test_while() -> None:
    """Operands are the constants of the condition, those of the body, and the carry."""
    def run(a: Any, b: Any, x: Any) -> Any:
        return lax.while_loop(lambda x: x[0] < a[0], lambda x: x + b.sum(), x)

    eqn = equation_of("while", run, jnp.zeros(2), jnp.zeros(3), jnp.zeros(4))
    assert (eqn.params["cond_nconsts"], eqn.params["body_nconsts"]) == (1, 1)
    assert shapes(eqn.invars) == [(2,), (3,), (4,)]
    assert shapes(eqn.params["cond_jaxpr"].jaxpr.invars) == [(2,), (4,)]
    assert shapes(eqn.params["body_jaxpr"].jaxpr.invars) == [(3,), (4,)]


def test_cond() -> None:
    """The index of the branch comes first; false is branch 0."""
    eqn = equation_of("cond", lambda w, x: lax.cond(w, jnp.sin, jnp.cos, x), True, 1.0)
    assert set(eqn.params) >= {"branches"} and eqn.invars[0].aval.dtype == jnp.int32
    assert [str(b.jaxpr.eqns[0].primitive) for b in eqn.params["branches"]] == ["cos", "sin"]


def test_checkpoint() -> None:
    eqn = equation_of("remat2", jax.checkpoint(jnp.sin), 1.0)
    assert set(eqn.params) == {"jaxpr", "prevent_cse", "policy", "differentiated"}
    assert len(jaxprs.copy_jaxpr(eqn.params["jaxpr"]).in_avals) == 1


def test_hooks_of_traces() -> None:
    """What an engine's trace is asked."""
    positional = {"process_primitive": ["self", "primitive", "tracers", "params"],
                  "process_custom_jvp_call": ["self", "primitive", "fun", "jvp", "tracers"],
                  "process_custom_vjp_call": ["self", "primitive", "fun", "fwd", "bwd", "tracers"]}
    keywords = {"process_custom_jvp_call": ["symbolic_zeros"], "process_custom_vjp_call": ["out_trees", "symbolic_zeros"]}
    for name, expected in positional.items():
        parameters = inspect.signature(getattr(jax.core.Trace, name)).parameters.values()
        assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == expected
        assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == keywords.get(name, [])


def test_custom_rules() -> None:
    """Parameters of the primitives that carry users' rules."""
    jvp = jax.custom_jvp(jnp.sin)
    jvp.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
    assert set(equation_of("custom_jvp_call", jvp, 1.0).params) == {"call_jaxpr", "jvp_jaxpr_fun", "num_consts", "symbolic_zeros"}
    vjp = jax.custom_vjp(jnp.sin)
    vjp.defvjp(lambda x: (x, None), lambda _, ct: (ct,))
    assert set(equation_of("custom_vjp_call", vjp, 1.0).params) == {
        "call_jaxpr", "fwd_jaxpr_thunk", "bwd", "num_consts", "out_trees", "symbolic_zeros"}


def test_staging_is_make_jaxpr() -> None:
    """``stage`` traces what ``make_jaxpr`` traces: constants, values of a trace outside, effects."""
    const, array, x = np.arange(3.0), jnp.arange(3.0), jax.ShapeDtypeStruct((3,), float)

    def compare(function: Any) -> None:
        avals = [jax.make_jaxpr(lambda x: x)(x).in_avals[0]]
        ours, theirs = jaxprs.stage(function, avals), jax.make_jaxpr(function)(*avals)
        assert type(ours) is type(theirs)
        assert str(ours) == str(theirs)
        assert len(ours.consts) == len(theirs.consts)
        assert ours.effects == theirs.effects
        assert ours.jaxpr.debug_info.func_src_info == theirs.jaxpr.debug_info.func_src_info

    compare(lambda x: [x * const + array, jnp.sum(x), 2.0])
    compare(lambda x: (jax.debug.print("{}", x), [x])[1])
    jax.make_jaxpr(lambda y: compare(lambda x: [x * y]))(array)
