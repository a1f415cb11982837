"""Modules as pure functions of arrays: ``eager.lower``."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.tree_util import tree_leaves, tree_map

from dualrev._jax.avals import is_array_like
from dualrev._jax.traces import Tracer
from dualrev.eager.core.evaluation import wide
from dualrev.eager.core.modes import mode
from dualrev.eager.func.arrays import Inside, held, operands, results
from dualrev.eager.graph.tensor import Tensor, array_of, fill, wrap
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import is_lazy
from dualrev.eager.serialization import load

#: Arrays by PyTorch's names: what a state_dict holds.
Arrays = dict[str, Any]


class Lowered:
    """A module as a pure function: what :func:`lower` returns.

    ``fun(params, *inputs)`` is the output.  With ``buffers=`` it is the pair of the output and the buffers after the call, and ``rng=``
    is the key of the random numbers that are drawn inside.  Neither the module nor anything else changes.

    ``buffers`` are those of the module when it was lowered; ``changes`` lists those that a call replaces, and ``draws`` says whether it
    draws random numbers.
    """

    def __init__(self, module: Module):
        lazy = [name for name, p in module.named_parameters() if is_lazy(p)]
        if lazy:
            raise ValueError(f"lower: the parameter '{lazy[0]}' has no shape yet\ncall the module once on its inputs: that gives "
                             "it one")
        params, own = dict(module.named_parameters()), dict(module.named_buffers())
        self.params: Arrays = {name: _own(p) for name, p in params.items()}
        self.buffers: Arrays = {name: _own(b) for name, b in own.items()}
        #: All names of parameters and buffers in a state_dict, with the name of the tensor: tied ones have several.
        names = {id(t): name for name, t in {**params, **own}.items()}
        self._names = {name: names[id(t)] for name, t in module.state_dict(keep_vars=True).items() if id(t) in names}
        self.frozen = frozenset(name for name, p in params.items() if not p.requires_grad)
        # Parameters and buffers are not copied: each call puts its own in their places.
        self.name = type(module).__name__
        memo: dict[int, Any] = {id(t): t for t in (*params.values(), *own.values())}
        self._module = copy.deepcopy(module, _with_loose(memo, module))
        self.changes: tuple[str, ...] = ()
        self.draws = False

    def __repr__(self) -> str:
        more = (f", changes {', '.join(self.changes)}" if self.changes else "") + (", draws random numbers" if self.draws else "")
        return f"Lowered({self.name}: {len(self.params)} parameters, {len(self.buffers)} buffers{more})"

    def __call__(self, params: Mapping[str, Any], *inputs: Any, buffers: Mapping[str, Any] | None = None, rng: Any = None,
                 **kwargs: Any) -> Any:
        """The output for arrays in place of the module's parameters; with ``buffers``, also the buffers after the call.

        Raises:
          ValueError: the names of parameters or buffers are not those of the module.
          RuntimeError: a call changes buffers or draws random numbers, and got no ``buffers`` or ``rng``.
        """
        state = np.zeros(2, np.uint32) if rng is None else _state(rng)
        run = Run(self, self._module, params, self.buffers if buffers is None else buffers, state, inputs, kwargs)
        if buffers is None and run.changes:
            raise RuntimeError(f"{self.name} changes its buffers: {', '.join(run.changes)}\nout, buffers = fun(params, ..., "
                               "buffers=fun.buffers) returns them; of a module in eval() they stay as they are")
        if rng is None and run.draws:
            raise RuntimeError(f"{self.name} draws random numbers\nfun(params, ..., rng=jax.random.key(0)) says which; a module in "
                               "eval() draws none")
        return run.out if buffers is None else (run.out, run.buffers)

    def load(self, source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Arrays, Arrays]:
        """The parameters and the buffers in a safetensors file, or in a state_dict.

        Raises:
          RuntimeError: names are missing or unexpected, or a shape differs.

        >>> from dualrev import eager as torch
        >>> fun, _ = torch.lower(torch.nn.Linear(2, 1), torch.ones(3, 2))
        >>> params, _ = fun.load({"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
        >>> fun(params, torch.ones(3, 2).jax).tolist()
        [[2.0], [2.0], [2.0]]
        """
        state: Mapping[str, Any] = source if isinstance(source, Mapping) else load(source)
        own = {**self.params, **self.buffers}
        kept = [name for name in own if name in self._names.values()]
        found = {self._names[key]: _own(x) for key, x in state.items() if key in self._names}
        wrong = [f"Missing key(s) in state_dict: \"{name}\". " for name in kept if name not in found]
        wrong += [f"Unexpected key(s) in state_dict: \"{key}\". " for key in state if key not in self._names]
        wrong += [f"size mismatch for {name}: copying a param with shape {list(x.shape)} from checkpoint, the shape in current model "
                  f"is {list(own[name].shape)}." for name, x in found.items() if x.shape != own[name].shape]
        if wrong:
            raise RuntimeError(f"Error(s) in loading state_dict for {self.name}:\n\t" + "\n\t".join(wrong))
        cast = {name: found[name].astype(x.dtype) if name in found else x for name, x in own.items()}
        return {name: cast[name] for name in self.params}, {name: cast[name] for name in self.buffers}


class Run:
    """One call of a module with given parameters, buffers and random numbers; the module itself stays as it is."""

    def __init__(self, fun: Lowered, module: Module, params: Mapping[str, Any], buffers: Mapping[str, Any], state: Any,
                 inputs: Sequence[Any], kwargs: Mapping[str, Any]):
        _check_names("parameters", params, fun.params)
        _check_names("buffers", buffers, fun.buffers)
        with Inside(random=wrap(state)) as inside:
            own = {name: _standing_in(t, params[name], name in fun.frozen) for name, t in module.named_parameters()}
            given = {name: _standing_in(t, buffers[name]) for name, t in module.named_buffers()}
            before = {name: t._storage.array for name, t in given.items()}
            memo = {id(t): own[name] for name, t in module.named_parameters()}
            memo.update({id(t): given[name] for name, t in module.named_buffers()})
            #: The copy of the module that ran.
            self.module = copy.deepcopy(module, _with_loose(memo, module))
            out = self.module(*operands(tuple(inputs)), **operands(dict(kwargs)))
            for name, t in own.items():
                if t._counter.version:
                    raise RuntimeError(f"{fun.name} changes its parameter '{name}' in place when it is called\na pure function cannot; "
                                       "register what a call changes with register_buffer")
            after = {name: t for name, t in self.module.named_buffers() if name in given}
            self.changes = tuple([name for name, t in after.items() if t is not given[name] or t._storage.array is not before[name]])
            self.draws = bool(mode.random._counter.version)
            self.out, self.buffers = results(out, inside.narrow), results(after, inside.narrow)


def lower(module: Module, *inputs: Any, **kwargs: Any) -> tuple[Lowered, Arrays]:
    """A module as a pure function of arrays, and its parameters: for ``dualrev``'s and jax's transformations, and sharding.

    The function is of the module as it is now: whether it is in training, its hooks, its attributes.  It calls the module's Python for
    each shape that it meets, so that whatever is jitted around it is one program.  The tree of parameters is a dict by PyTorch's names,
    as in a state_dict and in a safetensors file; parameters that do not require grad have zero derivatives.  Buffers that the call
    changes, as the statistics of batch norm, and keys of random numbers are arguments: see :class:`Lowered`.

    Args:
      module: a module whose parameters have their shapes.
      inputs, kwargs: arguments of the module, tensors or arrays; the call is traced once on their shapes, without being computed.

    Returns:
      ``(fun, params)``, where ``fun(params, *inputs)`` is what the module returns, with arrays in place of tensors.

    Raises:
      TypeError: it is no module.
      ValueError: a parameter has no shape yet.
      RuntimeError: Python looks at the value of a tensor; or the module changes a parameter, or carries values from one call to the
        next in an attribute that is no buffer.

    >>> import jax, jax.numpy as jnp
    >>> import dualrev as dr
    >>> from dualrev import eager as torch
    >>> fun, params = torch.lower(torch.nn.Linear(2, 3), torch.ones(4, 2))
    >>> sorted(params)
    ['bias', 'weight']
    >>> jax.jit(fun)(params, jnp.ones((5, 2))).shape
    (5, 3)
    >>> dr.grad(lambda p, x: jnp.sum(fun(p, x)))(params, jnp.ones((5, 2)))["bias"].tolist()
    [5.0, 5.0, 5.0]
    """
    if not isinstance(module, Module):
        raise TypeError(f"lower: expected a module, got {type(module).__name__}\ntorch.func.lower(f) is a function of tensors as one "
                        "of arrays")
    fun = Lowered(module)
    with wide():
        given, named = tree_map(_aval, (inputs, kwargs))
        keys = [jax.ShapeDtypeStruct((2,), np.uint32)] * 2
        values = tree_map(_aval, (fun.params, fun.buffers))
    places, tree = jax.tree_util.tree_flatten((given, named))
    arrays = [x for x in places if isinstance(x, jax.ShapeDtypeStruct)]

    def twice(params: Arrays, buffers: Arrays, first: Any, second: Any, one: list[Any], other: list[Any]) -> Any:
        ran: Module = fun._module
        for state, flat in ((first, one), (second, other)):
            values_of = iter(flat)
            leaves = [next(values_of) if isinstance(x, jax.ShapeDtypeStruct) else x for x in places]
            args, kw = jax.tree_util.tree_unflatten(tree, leaves)
            run = Run(fun, ran, params, buffers, state, args, kw)
            ran = run.module
        kept[:] = [name for name, _ in loose_tensors(ran)]
        fun.draws, fun.changes = run.draws, run.changes
        return [x for x in tree_leaves((run.out, run.buffers)) if isinstance(x, Tracer)]

    kept: list[str] = []
    jaxpr = jax.make_jaxpr(twice)(*values, *keys, arrays, arrays).jaxpr
    n = len(tree_leaves(values))
    if _depends(jaxpr, [*jaxpr.invars[n: n + 1], *jaxpr.invars[n + 2: n + 2 + len(arrays)]]):
        raise RuntimeError(f"{fun.name} carries values from one call to the next, in {' or '.join(kept) or 'an attribute'}\na pure "
                           "function has no memory: register it with register_buffer, or return it and take it as an argument")
    return fun, fun.params


def loose_tensors(module: Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors in attributes of a module and of those inside that are neither parameters nor buffers, with their names."""
    for prefix, m in module.named_modules():
        registered = {id(t) for t in (*m._parameters.values(), *m._buffers.values())}
        for name, x in vars(m).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            for leaf in tree_leaves(x) if isinstance(x, (list, tuple, dict)) else (x,):
                if isinstance(leaf, Tensor) and id(leaf) not in registered:
                    yield f"{prefix}.{name}" if prefix else name, leaf


def _with_loose(memo: dict[int, Any], module: Module) -> dict[int, Any]:
    """The copies of a module's tensors, with those in other attributes."""
    for _, t in loose_tensors(module):
        if id(t) not in memo:
            memo[id(t)] = _standing_in(t, array_of(t))
    return memo


def _standing_in(t: Tensor, value: Any, is_frozen: bool = False) -> Tensor:
    """A tensor of the same class for a call's own value."""
    new = object.__new__(type(t))
    array = held(array_of(value) if isinstance(value, Tensor) else value)
    fill(new, lax.stop_gradient(array) if is_frozen and isinstance(array, Tracer) else array)
    new.__dict__.update({k: v for k, v in t.__dict__.items() if not k.startswith("_")})
    return new


def _own(x: Any) -> jax.Array:
    """The value of a parameter or buffer as an array of jax's dtypes."""
    array = np.asarray(array_of(x) if isinstance(x, Tensor) else x)
    return jax.numpy.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))


def _aval(x: Any) -> Any:
    array: Any = array_of(x) if isinstance(x, Tensor) else x
    is_array = is_array_like(array) and hasattr(array, "shape")
    return jax.ShapeDtypeStruct(array.shape, array.dtype) if is_array else x


def _state(rng: Any) -> Any:
    """The two words that a source of random numbers keeps, of a key of jax's."""
    data = jax.random.key_data(rng) if jax.numpy.issubdtype(rng.dtype, jax.dtypes.prng_key) else rng
    if data.shape != (2,):
        raise ValueError(f"rng: expected a key of the default kind, two words of uint32; got {data.dtype}{list(data.shape)}\n"
                         "jax.random.key(0) is one")
    return data


def _check_names(what: str, given: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse trees with other names than the module's, or other shapes."""
    if not isinstance(given, Mapping) or given.keys() != own.keys():
        names = given.keys() if isinstance(given, Mapping) else ()
        lack, more = [k for k in own if k not in names], [k for k in names if k not in own]
        raise ValueError(f"the {what} of a lowered module are a dict by its names\n" + "; ".join(
            [*([f"missing are {', '.join(lack)}"] if lack else []), *([f"unexpected are {', '.join(more)}"] if more else [])]))


def _depends(jaxpr: Any, sources: Sequence[Any]) -> bool:
    """Whether an output of a program depends on one of its inputs."""
    reached = {id(x) for x in sources}
    for eqn in jaxpr.eqns:
        if any(id(x) in reached for x in eqn.invars):
            reached.update(id(x) for x in eqn.outvars)
    return any(id(x) in reached for x in jaxpr.outvars)
