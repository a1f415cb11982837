"""``taps``: the values and cotangents of the places that have a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten, tree_leaves, tree_structure, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import float0, is_array_like, typeof
from dualrev._jax.jaxprs import ClosedJaxpr, stage
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.functional import checks
from dualrev.functional.checks import Argnums
from dualrev.functional.flat_calls import linearize_flat, prepare
from dualrev.functional.results import Pullback
from dualrev.inspection.taps import marks
from dualrev.inspection.taps.evaluation import Tapped
from dualrev.inspection.taps.holders import HOLDERS
from dualrev.inspection.taps.places import Found, Place, taps_in
from dualrev.linear.residuals import Origins
from dualrev.linear.zeros import zeros_of
from dualrev.options.settings import Options, Request, using
from dualrev.programs.functions import split_arguments


class Tap(NamedTuple):
    """What :func:`taps` found at one place: a pytree.

    Attributes:
      value: the value, with the structure of what was tapped.
      cotangent: the derivative of the output by it, with the same structure; of dtype float0 for integers, and None where cotangents
        were not asked for.
      reached: booleans that say where the program came there; where it did not, both are zero (for the members of a batch in a
        ``while_loop``, see :func:`taps`).

    >>> import dualrev as dr
    >>> _, found = dr.taps(lambda x: dr.tap(2.0 * x, "y") ** 2)(3.0)
    >>> value, cotangent, reached = found["y"]
    >>> float(value), float(cotangent), bool(reached)
    (6.0, 12.0, True)
    """

    value: PyTree
    cotangent: PyTree
    reached: jax.Array


def taps(fun: Callable[..., PyTree], names: str | Iterable[str] | None = None, *, cotangents: bool = True, seed: PyTree = None,
         argnums: Argnums | None = None, has_aux: bool = False, record: int | None = None,
         **options: Unpack[Options]) -> Callable[..., tuple[PyTree, ...]]:
    r"""The function that also returns the values and cotangents in the middle of a function, by the names that :func:`tap` gave them.

    Where :math:`f = g(h(x))` and :math:`h` is tapped, they are :math:`h(x)` and :math:`\partial g(h(x))^{\mathsf T} u`, with
    :math:`u = 1` for a scalar output, or ``seed``; all from one evaluation and one pull.

    - **jit**, calls, ``jax.checkpoint``: as without.
    - **scan**, ``map``, ``fori_loop``: what is tapped in the body has an axis in front, with an entry for each step.
    - **while_loop**: of the last step, which is evaluated once more for it; with ``record=n``, an axis in front for the first ``n``
      steps.  The cotangent of a step is that of the output by the value at that step.  Under ``vmap`` inside the function, members of
      a batch may finish at different steps: then ``reached`` has an axis for them, cotangents are zero where it is False, and values
      there are of steps that do not count; under ``vmap`` around :func:`taps` they are zero, too.
    - **cond**, ``switch``: zeros where the branch is not taken, and ``reached`` is False.  Under ``vmap`` inside the function, where
      both branches are evaluated, the cotangent is zero there.
    - **vmap** inside the function: an axis in front for each ``vmap``, wherever the batch is, the outermost first.  A value that is
      the same for all members has none, and its cotangent is the sum over members.
    - **shard_map**: an axis in front with the shard of each device over which the value varies.
    - A tap inside a function with a rule of its own (``jax.custom_jvp``, ``jax.custom_vjp``, ``dr.rule``, ``dr.implicit``) has a value;
      to ask for its cotangent is an error, since the rule takes the place of the operations inside.
    - A derivative inside the function, such as ``dr.grad(g)``: a tap in ``g`` gives the primal value, and the cotangent of that.  What
      is evaluated again, as a checkpoint is when it is pulled, gives one more tap of the name.

    The function is traced as under ``jax.jit``, so that it cannot branch on values.  Wrap the result in ``jax.jit`` for speed.  jax
    traces compiled functions once more after the first call of ``taps`` in a process.

    Args:
      fun: function of arrays or pytrees of them.
      names: the names to look at, or one; None for all.
      cotangents: whether cotangents are found; without them, the output may be anything, and nothing is differentiated.
      seed: the cotangent of the output, with its structure; needed where that is no real scalar.
      argnums: which positional arguments to differentiate as well, by the same pull.
      has_aux: whether ``fun`` returns ``(value, aux)``.
      record: the number of steps of each ``while_loop`` that are kept; None for the last step alone.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      A function with the arguments of ``fun`` that returns ``(value, taps)``, or ``(value, gradient, taps)`` with ``argnums``, where
      ``value`` is what ``fun`` returns.  ``taps[name]`` is a :class:`Tap` ``(value, cotangent, reached)``; a tuple of them where the
      name is given several times, in the order of execution, and of the branches of a ``cond`` in the order of the branches.

    Raises:
      TapError: no tap has a name of ``names``; a cotangent is asked for that cannot be found.
      TypeError: the output is no real scalar, and there is no ``seed``.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> def loss(w, x):
    ...     h = dr.tap(jnp.tanh(w * x), "hidden")
    ...     return jnp.sum(h ** 2)
    >>> value, found = dr.taps(loss, "hidden")(jnp.zeros(2), jnp.ones(2))
    >>> found["hidden"].value.tolist(), found["hidden"].cotangent.tolist()
    ([0.0, 0.0], [0.0, 0.0])
    >>> value, gradient, found = dr.taps(loss, argnums=0)(jnp.array([0.5]), jnp.array([2.0]))
    >>> bool(jnp.allclose(found["hidden"].cotangent * (1 - found["hidden"].value ** 2) * 2.0, gradient))
    True

    Source: [GriewankWalther2008, ch. 3]: the cotangent of an intermediate value is its adjoint.
    """
    checks.check_callable(fun)
    wanted = None if names is None else (names,) if isinstance(names, str) else tuple(names)
    for name in wanted or ():
        if not isinstance(name, str):
            raise TypeError(f"taps: names must be a string, several, or None; got {name!r}")
    if record is not None and (isinstance(record, bool) or not isinstance(record, int) or record < 1):
        raise ValueError("taps: record must be the number of steps of a while_loop to keep, at least 1, or None for the last step; "
                         f"got {record!r}")
    if not cotangents and (seed is not None or argnums is not None):
        raise TypeError("taps: cotangents=False differentiates nothing; leave it out, or leave out "
                        f"{'seed' if seed is not None else 'argnums'}")
    Request.of("taps", options)
    positions = None if argnums is None else checks.normalize_argnums(argnums)
    marks.prepare_jax()

    def taps_f(*args: PyTree, **kwargs: PyTree) -> tuple[PyTree, ...]:
        with errors.calling("taps"):
            call = _Call(fun, wanted, record, args, kwargs, has_aux)
            if not cotangents:
                flat, found = call.evaluate(call.flat, [None] * len(call.places))
                return call.finish(flat), call.named(found, None)
            value, gradient, found, cts = call.pulled(seed, positions, options)
            return (value, call.named(found, cts)) if positions is None else (value, gradient, call.named(found, cts))

    taps_f.__name__ = f"taps_of_{checks.name_of(fun)}"
    return taps_f


class _Call:
    """One call of a function: its program with taps, and the places that are wanted."""

    def __init__(self, fun: Callable[..., PyTree], wanted: tuple[str, ...] | None, record: int | None, args: tuple[PyTree, ...],
                 kwargs: dict[str, PyTree], has_aux: bool):
        self.args, self.has_aux = args, has_aux
        self.flat, tree, fixed = split_arguments(args, kwargs)
        self.fixed = fixed

        def on_arrays(*arrays: jax.Array) -> list[jax.Array]:
            values = iter(arrays)
            args, kwargs = tree_unflatten(tree, [next(values) if x is None else x[0] for x in fixed])
            result = fun(*args, **kwargs)
            if has_aux:
                checks.check_pair(result)
            checks.check_leaves(result, "outputs")
            leaves, self.out_tree = tree_flatten(result)
            self.n_value = len(tree_leaves(result[0])) if has_aux else len(leaves)
            return leaves

        with marks.asking():
            self.program: ClosedJaxpr = stage(on_arrays, [typeof(x) for x in self.flat])
        tapped = list(dict.fromkeys(eqn.params["name"] for eqn in taps_in(self.program)))
        for name in wanted or ():
            if name not in tapped:
                raise marks.unknown(name, tapped)
        self.tapped = Tapped(lambda name: wanted is None or name in wanted, record, HOLDERS)
        self.places = self.tapped.places(self.program)

    def evaluate(self, flat: Sequence[jax.Array], perturbations: Sequence[jax.Array | None]) -> tuple[list[jax.Array], list[Found]]:
        return self.tapped.evaluate(self.program, flat, perturbations)

    def finish(self, flat: Sequence[jax.Array]) -> PyTree:
        return tree_unflatten(self.out_tree, flat)

    def pulled(self, seed: PyTree, positions: int | tuple[int, ...] | None,
               options: Options) -> tuple[PyTree, PyTree, list[Found], list[jax.Array | None]]:
        """What the function returns, the gradient by arguments, what the places give, and their cotangents."""
        for place in self.places:
            if place.obstacle:
                raise errors.TapError(
                    f"{errors.CALL}: no cotangent reaches the tap {place.name!r}{place.line and f' at {place.line}'}. It stands inside "
                    f"a function with a derivative rule of its own ({place.obstacle}): that rule, not the operations inside, says how "
                    "cotangents go through. Tap what the function takes or returns, or pass cotangents=False for values alone.")
        has_cotangent = [place.has_cotangent for place in self.places]
        zeros = [zeros_of(place.aval) for place in self.places if place.has_cotangent]
        chosen = () if positions is None else checks.resolve_argnums(positions, len(self.args), "taps")
        places = self._leaves_of(chosen)

        def with_perturbations(zeros: list[jax.Array], *primals: PyTree) -> tuple[list[jax.Array], tuple[list[jax.Array], list[Found]]]:
            flat: list[Any] = list(self.flat)
            values = iter(zeros)
            for i, x in zip(places, filter(is_array_like, tree_leaves(primals)), strict=True):
                flat[i] = x
            outs, found = self.evaluate(flat, [next(values) if flag else None for flag in has_cotangent])
            return outs[: self.n_value], (outs, found)

        request = Request.of("taps", options)
        with using(request.settings):
            call, primals = prepare(with_perturbations, (zeros, *[self.args[i] for i in chosen]), True, request, "arguments")
            results, linear_map, structure = linearize_flat(call, primals, "reverse", request)
            value, (outs, found) = call.finish(results)
            result = self.finish(outs)
            seeds = self._seed(seed, value, result[0] if self.has_aux else result)
            cts, *gradient = Pullback(linear_map, structure, Origins(primals, results[: call.n_out], structure))(seeds)
        given = iter(cts)
        found_cts = [next(given) if flag else None for flag in has_cotangent]
        return result, gradient[0] if isinstance(positions, int) else tuple(gradient), found, found_cts

    def _leaves_of(self, positions: Sequence[int]) -> list[int]:
        """Which of the flat arguments are leaves of these arguments."""
        ends = [0]
        for arg in self.args:
            ends.append(ends[-1] + len(tree_leaves(arg)))
        leaves = [i for p in positions for i in range(ends[p], ends[p + 1]) if self.fixed[i] is None]
        return [sum(f is None for f in self.fixed[:i]) for i in leaves]

    def _seed(self, seed: PyTree, value: list[jax.Array], result: PyTree) -> list[Any]:
        if seed is None:
            aval = typeof(value[0]) if len(value) == 1 else None
            if aval is None or aval.shape or not jnp.issubdtype(aval.dtype, jnp.floating):
                found = ", ".join(f"{typeof(x).dtype.name}{list(typeof(x).shape)}" for x in value) or "nothing"
                raise TypeError(f"taps: cotangents are derivatives of a real scalar; the function returns {found}. Pass seed=, the "
                                "cotangent of what it returns; cotangents=False for values alone; or has_aux=True if it returns "
                                "(value, aux).")
            return [jnp.ones_like(value[0])]
        leaves, tree = tree_flatten(seed)
        expected: PyTreeDef = tree_structure(result)
        if tree != expected:
            raise TypeError(f"taps: seed must have the structure of what the function returns, {expected}; got {tree}")
        for x, out in zip(leaves, value, strict=True):
            if np.shape(x) != typeof(out).shape:
                raise ValueError(f"taps: seed must have the shapes of what the function returns; got {list(np.shape(x))} for "
                                 f"{typeof(out).dtype.name}{list(typeof(out).shape)}")
        return leaves

    def named(self, found: Sequence[Found], cts: Sequence[jax.Array | None] | None) -> dict[str, Tap | tuple[Tap, ...]]:
        """The taps by name, each put together of its leaves."""
        groups: dict[str, list[dict[int, int]]] = {}
        for i, place in enumerate(self.places):
            mine = groups.setdefault(place.name, [])
            latest = mine[-1] if mine else {}
            if not latest or place.leaf <= max(latest) or self.places[next(iter(latest.values()))].tree != place.tree:
                mine.append({place.leaf: i})
            else:
                latest[place.leaf] = i
        return {name: tuple(each) if len(each) > 1 else each[0]
                for name, each in ((name, [self._tap(group, found, cts) for group in mine]) for name, mine in groups.items())}

    def _tap(self, group: dict[int, int], found: Sequence[Found], cts: Sequence[jax.Array | None] | None) -> Tap:
        first: Place = self.places[next(iter(group.values()))]
        leaves = range(first.tree.num_leaves)

        def whole(of: Callable[[int], Any]) -> PyTree:
            return tree_unflatten(first.tree, [of(group[k]) if k in group else None for k in leaves])

        def cotangent(i: int) -> Any:
            ct = cts[i] if cts is not None else None
            return np.zeros(self.places[i].shape, float0) if ct is None else ct

        value = whole(lambda i: found[i].value)
        return Tap(value, None if cts is None else whole(cotangent), found[next(iter(group.values()))].reached)
