"""Sparse Jacobians and Hessians: detect and colour once for each type of the arguments, then evaluate compiled.

What is prepared for a call depends on the shapes and dtypes of its arguments, and on those that are no arrays; not on numbers.  All
arrays among the arguments are unknown to the detection, whether they are differentiated or not.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Hashable

import jax

from dualrev import errors, time_model
from dualrev._jax.avals import typeof
from dualrev._jax.jaxprs import trace_context
from dualrev._jax.trees import PyTree
from dualrev.functional import checks
from dualrev.functional.choices import Choice, Planned, with_plan
from dualrev.functional.gradients import P, wraps
from dualrev.options.settings import using
from dualrev.programs.functions import Fixed, split_arguments
from dualrev.sparse.prepared import Prepared
from dualrev.sparse.requests import Asked

#: Types of arguments that one function keeps plans for, and different requests.
MOST_KEPT, MOST_REQUESTS = 64, 32

#: What was prepared for a function, for each request.  A function goes with its last reference, as nothing here holds it.
_prepared: weakref.WeakKeyDictionary[Callable[..., PyTree], dict[Asked, dict[Hashable, Prepared]]] = weakref.WeakKeyDictionary()


def _kept_for(fun: Callable[..., PyTree], request: Asked) -> tuple[dict[Hashable, Prepared], Callable[[], Callable[..., PyTree]]]:
    """What was prepared for this function and request before, and what gives the function.

    A function is known by its identity, as for ``jax.jit``.  Other callables may be equal although they hold other values.
    """
    if not isinstance(fun, types.FunctionType) or request.pattern is not None:
        return {}, lambda: fun
    requests = _prepared.setdefault(fun, {})
    if request not in requests and len(requests) >= MOST_REQUESTS:
        requests.pop(next(iter(requests)))
    reference = weakref.ref(fun)
    return requests.setdefault(request, {}), reference  # type: ignore[return-value]  # whoever calls it holds the function


class Sparse:
    """The functions of a user's arguments that give sparse derivatives, and what they keep."""

    def __init__(self, fun: Callable[..., PyTree], request: Asked):
        with errors.calling(request.name):
            checks.check_callable(fun)
        self.fun = fun
        self.asked = request
        self._kept, self._gives_fun = _kept_for(fun, request)

    def prepared(self, args: tuple[PyTree, ...], kwargs: dict[str, PyTree]) -> tuple[Prepared, list[jax.Array]]:
        with errors.calling(self.asked.name), using(self.asked.request.settings):
            positions = checks.resolve_argnums(self.asked.argnums, len(args), self.asked.name)
            checks.check_leaves(tuple(args[i] for i in positions), "arguments")
            arrays, tree, fixed = split_arguments(args, kwargs)
            key = (tree, _hashable(fixed), tuple(map(typeof, arrays)), time_model.constants().name, trace_context())
            if key not in self._kept:
                if len(self._kept) >= MOST_KEPT:
                    self._kept.clear()
                self._kept[key] = Prepared(self._gives_fun, self.asked, tree, fixed, arrays)
            return self._kept[key], arrays

    def current(self, args: tuple[PyTree, ...], kwargs: dict[str, PyTree]) -> Prepared:
        """What is prepared for a call of the function as it is now: what it reads from elsewhere may have changed."""
        known = set(map(id, self._kept.values()))
        prepared, _ = self.prepared(args, kwargs)
        if id(prepared) in known and not prepared.is_current():
            self.forget(prepared)
            prepared, _ = self.prepared(args, kwargs)
        return prepared

    def forget(self, prepared: Prepared) -> None:
        """Prepare such a call anew the next time."""
        for key in [key for key, each in self._kept.items() if each is prepared]:
            del self._kept[key]

    def __call__(self, *args: PyTree, **kwargs: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        prepared, arrays = self.prepared(args, kwargs)
        with errors.calling(self.asked.name), using(self.asked.request.settings):
            return prepared(arrays)


def _hashable(fixed: Fixed) -> Hashable:
    try:
        hash(fixed)
    except TypeError:
        return tuple([None if x is None else id(x[0]) for x in fixed])
    return fixed


def derivative(fun: Callable[P, PyTree], request: Asked, with_value: bool = False,
               sparse: Sparse | None = None) -> Planned[P, PyTree]:
    """The function that returns the matrix, and before it the value if that is asked for, and after it ``aux``."""
    sparse = Sparse(fun, request) if sparse is None else sparse
    has_aux = request.has_aux
    what = "Jacobian" if request.kind == "jacobian" else "Hessian"

    @wraps(fun, request.argnums, what if not with_value else f"Value and {what}")
    def sparse_f(*args: P.args, **kwargs: P.kwargs) -> PyTree:
        value, aux, matrix = sparse(*args, **kwargs)
        if with_value:
            return ((value, aux) if has_aux else value), matrix
        return (matrix, aux) if has_aux else matrix

    def plan(*args: PyTree, **kwargs: PyTree) -> Choice:
        force = f'{request.name}(f, sparse=True)' if request.format != "dense" else f'{request.name}(f, engine="sparse")'
        return Choice(request.name, checks.name_of(fun), "sparse", force, {}, {}, sparse.prepared(args, kwargs)[0].plan, "", "sparse",
                      is_asked=True)

    return with_plan(sparse_f, plan)
