"""One function on arguments of one type: its pattern, colours, and the compiled evaluation of its sparse derivative."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim
from jax.sharding import Mesh
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev import errors, time_model
from dualrev._jax.avals import is_array_like, tangent_aval, typeof
from dualrev._jax.jaxprs import ClosedJaxpr, hoisted, stage
from dualrev._jax.traces import Tracer, is_eager
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.functional import checks
from dualrev.functional.flat_calls import FlatCall
from dualrev.functional.gradients import Partial
from dualrev.options.settings import using
from dualrev.programs.functions import Fixed
from dualrev.programs.shared import Fingerprint
from dualrev.sparse import evaluation, formats, meshes, patterns, probing, requests
from dualrev.sparse.colouring.greedy import NO_COLOUR
from dualrev.sparse.colouring.positions import Positions
from dualrev.sparse.colouring.recovery import Colouring
from dualrev.sparse.colouring.search import MOST_APART, hessian_colouring, is_decided, jacobian_colouring
from dualrev.sparse.plans import Plan, types_of
from dualrev.sparse.requests import Asked


class Results:
    """How the flat results of a function make up what it returned; results that are no arrays are kept."""

    def __init__(self, call: FlatCall, results: Sequence[Any]):
        self.n_out = call.n_out
        self.out_tree = call.out_tree
        self.aux_tree: PyTreeDef | None = call.aux_tree if call.has_aux else None
        self.others = [None if is_array_like(x) else x for x in results]

    def finish(self, arrays: Sequence[jax.Array]) -> tuple[PyTree, PyTree]:
        """``(value, aux)``, from the results that are arrays."""
        values = iter(arrays)
        flat = [next(values) if x is None else x for x in self.others]
        aux = None if self.aux_tree is None else tree_unflatten(self.aux_tree, flat[self.n_out:])
        return tree_unflatten(self.out_tree, flat[: self.n_out]), aux


class Prepared:
    """A function on arguments of one type: its pattern, colours, and the compiled evaluation.

    ``fun``: gives the function, which may be kept weakly: whoever calls it holds it.
    """

    def __init__(self, fun: Callable[[], Callable[..., PyTree]], request: Asked, tree: PyTreeDef, fixed: Fixed,
                 arrays: Sequence[jax.Array]):
        self._fun = fun
        self.asked = request
        self.tree = tree
        self.fixed = fixed
        self.avals = [typeof(x) for x in arrays]
        if any(is_symbolic_dim(d) for a in self.avals for d in a.shape):
            raise NotImplementedError(f"{request.name}: sparse derivatives need sizes that are numbers, to colour; got "
                                      f"{', '.join(map(errors.short, self.avals))}")
        self.in_tree: PyTreeDef
        self.active: list[int]
        self.results: Results
        #: The function as a program, with what it closes over, until the pattern is known.
        self._program: ClosedJaxpr | None = self._staged()
        self.in_avals = [tangent_aval(self.avals[i]) for i in self.active]
        self.out_avals = [a.update(weak_type=False) for a in self._program.out_avals]
        self._check_outputs()
        #: Tells the program from others.
        self.identity = Fingerprint(self._program)
        self._compiled = jax.jit(self.evaluated)
        self._products: dict[str, Callable[..., Any]] = {}

    # ------------------------------------------------------------------------------------------------------------ the function

    def flat_call(self, arrays: Sequence[jax.Array]) -> tuple[FlatCall, list[jax.Array]]:
        values = iter(arrays)
        args, kwargs = tree_unflatten(self.tree, [next(values) if x is None else x[0] for x in self.fixed])
        partial = Partial(self.asked.name, self._fun(), self.asked.argnums, args, kwargs)
        return partial.flat_call(self.asked.has_aux, self.asked.request)

    def _staged(self) -> ClosedJaxpr:
        """The function as a program; constants that are being traced are inputs of it, after the arguments."""

        def outs(*arrays: jax.Array) -> list[jax.Array]:
            call, flat = self.flat_call(arrays)
            for x in flat:
                requests.check_input(self.asked, x)
            places = {id(x): i for i, x in enumerate(arrays)}
            self.active = [places[id(x)] for x in flat]
            results = call(*flat)
            self.in_tree, self.results = call.in_tree, Results(call, results)
            return results[: call.n_out]

        return stage(outs, self.avals)

    def _check_outputs(self) -> None:
        name = self.asked.name
        if self.asked.kind == "hessian" and (len(self.out_avals) != 1 or self.out_avals[0].shape != ()):
            raise TypeError(f"{name}: a sparse Hessian is that of a function with one scalar output; the function returned "
                            f"{checks.spelled(self.results.out_tree, self.out_avals)}. Reduce it to a scalar, or use "
                            "jacobian(grad(f), sparse=True) of each part.")
        self.engine = requests.check_dtypes(self.asked, self.in_avals, self.out_avals)

    # -------------------------------------------------------------------------------------------------------------- the plan

    @property
    def program(self) -> ClosedJaxpr:
        """The function as a program."""
        return self._staged() if self._program is None else self._program

    def is_current(self) -> bool:
        """Whether the function's program is the one that was prepared: what it reads from elsewhere may have changed."""
        with errors.calling(self.asked.name), using(self.asked.request.settings):
            return Fingerprint(self._staged()) == self.identity

    @cached_property
    def positions(self) -> Positions:
        """The entries that may be nonzero."""
        if self.asked.plan is not None:
            found = self.asked.plan.colouring.positions
        elif self.asked.pattern is not None:
            found = formats.positions_of(self.asked.pattern, self.asked.name, self.shape)
        else:
            found = self.detected()
        return found

    @cached_property
    def plan(self) -> Plan:
        found = self._planned()
        self._program = None
        return found

    @property
    def colouring(self) -> Colouring:
        return self.plan.colouring

    @cached_property
    def wrappers(self) -> list[list[formats.Wrapper]]:
        """What the entries belong to: blocks ``[output][input]``."""
        by_row = self.in_avals if self.asked.kind == "hessian" else self.out_avals
        blocks = formats.blocks_of(self.colouring.positions, by_row, self.in_avals)
        return [[formats.Wrapper(block, self.asked.format) for block in row] for row in blocks]

    @property
    def shape(self) -> tuple[int, int]:
        n = sum(a.size for a in self.in_avals)
        return (n if self.asked.kind == "hessian" else sum(a.size for a in self.out_avals)), n

    def _planned(self) -> Plan:
        name, given = self.asked.name, self.asked.plan
        in_types, out_types = types_of(self.in_avals), types_of(self.out_avals)
        if given is not None:
            if (given.in_types, given.out_types) != (in_types, out_types):
                raise ValueError(f"{name}: the plan is for inputs {_spelled(given.in_types)} and outputs {_spelled(given.out_types)}; "
                                 f"this function has inputs {_spelled(in_types)} and outputs {_spelled(out_types)}")
            return given
        positions = self.positions
        what = checks.name_of(self._fun())
        if self.asked.kind == "hessian":
            colouring = hessian_colouring(positions, self.asked.task)
            return Plan("hessian", what, colouring, out_types, in_types)
        engine, task = self.engine, self.asked.task
        colouring = jacobian_colouring(positions, engine, task)
        if task.is_priced:
            return Plan("jacobian", what, colouring, out_types, in_types, (task.forward, task.reverse))
        if engine != "auto" or is_decided(colouring, task):
            return Plan("jacobian", what, colouring, out_types, in_types)
        costs = self.pass_costs(positions)
        colouring = jacobian_colouring(positions, engine, dataclasses.replace(task, forward=costs[0], reverse=costs[1]))
        return Plan("jacobian", what, colouring, out_types, in_types, costs)

    def detected(self, most: int | None = None) -> Positions:
        """The pattern by propagation.

        Raises:
          TooManyError: it has more than ``most`` entries, or sets of inputs together have more members than the matrix has entries.
        """
        program = self.program
        wrt = self.active
        if any(isinstance(x, Tracer) for x in program.consts):
            program, consts = hoisted(program)
            wrt = [len(consts) + i for i in wrt]
        detect = patterns.hessian_csr if self.asked.kind == "hessian" else patterns.jacobian_csr
        avals = [v.aval for v in program.jaxpr.invars]
        return Positions.of_csr(detect(program, avals, wrt=wrt, most=most))

    def pass_costs(self, positions: Positions) -> tuple[float, float]:
        """Predicted seconds of one more push, and of one more pull, beside others."""
        m, n = positions.shape
        constants = time_model.constants()

        def seconds(forward: int, reverse: int) -> float:
            columns = np.arange(n) % forward if forward else np.full(n, NO_COLOUR)
            rows = np.arange(m) % reverse if reverse else np.full(m, NO_COLOUR)
            return self._seconds(Colouring(positions, columns, rows, np.zeros(0, np.int64)), constants)

        few, many = 2, 6
        one = [(seconds(*[many * x for x in side]) - seconds(*[few * x for x in side])) / (many - few) for side in ((1, 0), (0, 1))]
        least = max(max(one) / MOST_APART, 1e-12)
        return max(one[0], least), max(one[1], least)

    def _seconds(self, colouring: Colouring, constants: time_model.Constants) -> float:
        def program(*arrays: jax.Array) -> list[jax.Array]:
            with using(self.asked.request.settings):
                return [self._compressed(self.flat_call(arrays), colouring)[1]]

        return time_model.time_of(stage(program, self.avals), constants)

    def predicted(self) -> Plan:
        """The plan with predictions of time."""
        constants = time_model.constants()
        costs = self.plan.costs
        if self.asked.kind == "jacobian" and costs == (1.0, 1.0) and not self.asked.task.is_priced:
            costs = self.pass_costs(self.colouring.positions)
        elif self.asked.kind == "hessian":
            push = self._seconds(self.colouring, constants) / max(self.colouring.n_forward, 1)
            costs = (push, push)
        program = stage(lambda *arrays: tree_flatten(self.evaluated(*arrays))[0], self.avals)
        return dataclasses.replace(self.plan, costs=costs, seconds=time_model.time_of(program, constants))

    # ------------------------------------------------------------------------------------------------------------- evaluation

    def _compressed(self, call_and_flat: tuple[FlatCall, list[jax.Array]], colouring: Colouring,
                    mesh: Mesh | None = None) -> tuple[list[jax.Array], jax.Array]:
        call, flat = call_and_flat
        compress = evaluation.compressed_hessian if self.asked.kind == "hessian" else evaluation.compressed_jacobian
        return compress(call, flat, colouring, self.asked.chunk_size, self.asked.request, mesh)

    def evaluated(self, *arrays: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        """What the function returned, flat, as far as it is arrays; and the entries of each block (or the block itself)."""
        with errors.calling(self.asked.name), using(self.asked.request.settings):
            call, flat = self.flat_call(arrays)
            results, compressed = self._compressed((call, flat), self.colouring, self.plan.mesh)
            source = evaluation.substituted(self.colouring, compressed)
            data = []
            for row in self.wrappers:
                for wrapper in row:
                    found = evaluation.entries(self.colouring, source, wrapper.block.chosen)
                    if jnp.iscomplexobj(found) and not jnp.issubdtype(wrapper.block.dtype, jnp.complexfloating):
                        found = lax.real(found)  # of a tree in which others are complex
                    found = lax.convert_element_type(found, wrapper.block.dtype)
                    data.append(wrapper.filled(found) if self.asked.format == "dense" else found)
            self.results = Results(call, results)
            return [x for x in results if is_array_like(x)], data

    def __call__(self, arrays: Sequence[jax.Array]) -> tuple[PyTree, PyTree, PyTree]:
        """``(value, aux, matrix)``."""
        wrappers = self.wrappers  # planned here, not while the evaluation is traced
        if self.plan.mesh is not None:
            meshes.check_arrays(self.asked.name, self.plan.mesh, arrays)
        found, data = (self._compiled if is_eager(arrays) else self.evaluated)(*arrays)
        value, aux = self.results.finish(found)
        if self.asked.is_checked:
            self._check(arrays)
        each = iter(data)
        trees = [tree_unflatten(self.in_tree, [wrapper(next(each), self.asked.name) for wrapper in row]) for row in wrappers]
        single = isinstance(self.asked.argnums, int)
        parts = [part[0] if single else tuple(part) for part in trees]
        if self.asked.kind == "jacobian":
            return value, aux, tree_unflatten(self.results.out_tree, parts)
        outer = tree_unflatten(self.in_tree, parts)
        return value, aux, outer[0] if single else tuple(outer)

    # ------------------------------------------------------------------------------------------------------------ the check

    def _check(self, arrays: Sequence[jax.Array]) -> None:
        """Compare the pattern with a product with a random vector."""
        if not is_eager(arrays):
            raise errors.OptionError(f"{self.asked.name}: check=True compares numbers, and the function is being traced; check the "
                                     "pattern outside jit, vmap and grad, once")
        positions = self.colouring.positions
        m, n = positions.shape
        v = probing.vector(n)

        def entries(*arrays: jax.Array) -> jax.Array:
            compressed = self._compressed(self.flat_call(arrays), self.colouring)[1]
            return evaluation.entries(self.colouring, evaluation.substituted(self.colouring, compressed))

        def product(v: jax.Array, u: jax.Array, *arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
            call, flat = self.flat_call(arrays)
            return evaluation.products(call, flat, v, u, self.asked.kind == "hessian", self.asked.request)

        with errors.calling(self.asked.name), using(self.asked.request.settings):
            run = self._products
            values = run.setdefault("entries", jax.jit(entries))(*arrays)
            both = run.setdefault("product", jax.jit(product))
            dtype = values.dtype
            nothing = jnp.zeros(m, dtype)
            vector = jnp.asarray(v, dtype)
            pushed, _ = both(vector, nothing, *arrays)

            def row(i: int) -> jax.Array:
                found: jax.Array = both(jnp.zeros(n, dtype), nothing.at[i].set(1), *arrays)[1]
                return found

            probing.check(self.asked.name, positions, values, vector, pushed, row)


def _spelled(types: Sequence[tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{dtype}[{','.join(map(str, shape))}]" for shape, dtype in types) or "none"
