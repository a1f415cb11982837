"""Checks of what users hand to the functional face, and of what their functions return."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence
from typing import TypeAlias

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten, tree_flatten_with_path, tree_leaves_with_path

from dualrev import errors
from dualrev._jax.avals import JAX_VERSION, DType, ShapedArray, float0, is_array_like, is_reference, tangent_aval, typeof
from dualrev._jax.custom_rules import is_symbolic_zero
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.linear.zeros import Tangent
from dualrev.programs.functions import as_arrays

#: The positions of arguments to differentiate.
Argnums: TypeAlias = int | Sequence[int]

#: A bool, or a tree of bools that is a prefix of another tree.
Flags: TypeAlias = PyTree

# jax capitalizes the word in this message since 0.11; programs that read it find the one their release prints.
_VJP = "VJP" if JAX_VERSION >= (0, 11) else "vjp"


def check_callable(fun: object) -> None:
    if not callable(fun):
        raise TypeError(f"Expected a callable value, got {fun!r}: {errors.user_call.get()} differentiates a function")
    if isinstance(fun, type):
        return
    if inspect.isgeneratorfunction(fun):
        raise TypeError(f"Expected a function, got a generator function: {fun!r}")


def name_of(fun: object) -> str:
    name: str | None = getattr(fun, "__name__", None)
    return name or type(fun).__name__


def normalize_argnums(argnums: Argnums) -> int | tuple[int, ...]:
    """``argnums`` as an int or a tuple of ints."""
    try:
        return operator.index(argnums)  # type: ignore[arg-type]  # a sequence raises
    except TypeError:
        if isinstance(argnums, str) or not isinstance(argnums, Sequence):
            raise TypeError(f"argnums must be an int or a sequence of ints; got {argnums!r}, and "
                            f"{type(argnums).__name__!r} object cannot be interpreted as an integer") from None
        return tuple(operator.index(i) for i in argnums)


def resolve_argnums(argnums: int | tuple[int, ...], n_args: int, call: str) -> tuple[int, ...]:
    """Nonnegative positions of the arguments to differentiate."""
    positions = (argnums,) if isinstance(argnums, int) else argnums
    if not positions:
        raise ValueError(f"{call} needs at least one argument to differentiate; got argnums={argnums!r}")
    required = max(positions) + 1
    if call == "grad" and n_args < required:
        raise TypeError(f"differentiating with respect to {argnums=} requires at least {required} positional arguments to be "
                        f"passed by the caller, but got only {n_args} positional arguments.")
    for i in positions:
        if not -n_args <= i < n_args:
            raise ValueError("Positional argument indices, e.g. for `static_argnums`, must have value greater than or equal to "
                             f"-len(args) and less than len(args), but got value {i} for len(args) == {n_args} (in the argnums "
                             f"of {call}).")
    resolved = tuple(i % n_args for i in positions)
    if len(set(resolved)) != len(resolved):
        raise ValueError(f"{call}: {argnums=} names the same argument twice")
    return resolved


def check_leaves(tree: PyTree, what: str) -> None:
    """Every leaf is an array, or something that jax takes for one."""
    for path, leaf in tree_leaves_with_path(tree):
        if not is_array_like(leaf):
            raise TypeError(f"Argument '{leaf}' of type {type(leaf)} is not a valid JAX type. {errors.user_call.get()} needs "
                            f"arrays as {what}, and {what}{keystr(path)} is not one.")
        aval = typeof(leaf)
        if is_reference(aval):
            raise TypeError(f"{errors.user_call.get()}: {what}{keystr(path)} is a mutable reference, of type {aval}. "
                            "Differentiate with respect to a value: pass ref[...], and make the reference inside the function.")
        if not hasattr(aval, "dtype"):
            raise TypeError(f"{errors.user_call.get()} needs arrays as {what}; {what}{keystr(path)} has the type {aval}, which "
                            "jax.experimental.hijax defines. Differentiate a function of the arrays that such a value is made from.")


def dtype_of(x: object) -> DType:
    dtype: DType = typeof(x).dtype
    return dtype


def _is_sub(dtype: DType, kind: type) -> bool:
    return bool(jax.dtypes.issubdtype(dtype, kind))


def check_input_dtype(call: str, holomorphic: bool, allow_int: bool, x: object) -> None:
    dtype = dtype_of(x)
    if holomorphic:
        if not _is_sub(dtype, np.complexfloating):
            raise TypeError(f"{call} with holomorphic=True requires inputs with complex dtype, but got {dtype.name}.")
    elif _is_sub(dtype, jax.dtypes.extended) or _is_sub(dtype, np.integer) or _is_sub(dtype, np.bool_):
        if not allow_int:
            raise TypeError(
                f"{call} requires real- or complex-valued inputs (input dtype that is a sub-dtype of np.inexact), but got "
                f"{dtype.name}. If you want to use Boolean- or integer-valued inputs, use vjp or set allow_int to True."
            )
    elif not _is_sub(dtype, np.inexact):
        raise TypeError(f"{call} requires numerical-valued inputs (input dtype that is a sub-dtype of np.bool_ or np.number), "
                        f"but got {dtype.name}.")


def check_forward_input_dtype(call: str, holomorphic: bool, x: object) -> None:
    dtype = dtype_of(x)
    if holomorphic:
        if not _is_sub(dtype, np.complexfloating):
            raise TypeError(f"{call} with holomorphic=True requires inputs with complex dtype, but got {dtype.name}.")
    elif not _is_sub(dtype, np.floating):
        raise TypeError(
            f"{call} requires real-valued inputs (input dtype that is a sub-dtype of np.floating), but got {dtype.name}. For "
            "holomorphic differentiation, pass holomorphic=True. For differentiation of non-holomorphic functions involving "
            "complex inputs or integer inputs, use jvp directly."
        )


def check_real_input(call: str, x: object) -> None:
    dtype = dtype_of(x)
    if not _is_sub(dtype, np.floating):
        raise TypeError(f"{call} requires real floating-point inputs, but got {dtype.name}. Name the arguments to differentiate by "
                        "argnums; others may have any dtype. Give a complex number as its real and imaginary parts.")


def check_count(call: str, what: str, count: object) -> int:
    """A number of at least 1 that a trace depends on, as an int."""
    try:
        found = operator.index(count)  # type: ignore[arg-type]  # anything else raises
    except TypeError:
        raise TypeError(f"{call}: {what} must be an int, known when the function is traced; got {count!r}") from None
    if found < 1:
        raise ValueError(f"{call}: {what} must be at least 1; got {found}")
    return found


def check_chunk_size(call: str, chunk_size: object) -> None:
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise ValueError(f"{call}: chunk_size must be a positive int or None; got {chunk_size!r}")


def check_output_dtype(call: str, holomorphic: bool, x: object) -> None:
    dtype = dtype_of(x)
    if holomorphic:
        if not _is_sub(dtype, np.complexfloating):
            raise TypeError(f"{call} with holomorphic=True requires outputs with complex dtype, but got {dtype.name}.")
    elif _is_sub(dtype, np.complexfloating):
        raise TypeError(
            f"{call} requires real-valued outputs (output dtype that is a sub-dtype of np.floating), but got {dtype.name}. For "
            "holomorphic differentiation, pass holomorphic=True. For differentiation of non-holomorphic functions involving "
            "complex outputs, use vjp directly."
        )
    elif not _is_sub(dtype, np.floating):
        raise TypeError(
            f"{call} requires real-valued outputs (output dtype that is a sub-dtype of np.floating), but got {dtype.name}. For "
            "differentiation of functions with integer outputs, use vjp directly."
        )


def check_forward_output_dtype(call: str, holomorphic: bool, x: object) -> None:
    dtype = dtype_of(x)
    if holomorphic and not _is_sub(dtype, np.complexfloating):
        raise TypeError(f"{call} with holomorphic=True requires outputs with complex dtype, but got {dtype.name}.")


def check_scalar(out: object) -> None:
    """The output of a function whose gradient is asked for is one scalar."""
    message = "Gradient only defined for scalar-output functions. Output "
    advice = " Reduce it to a scalar (for example with .sum()), or use jacobian."
    if not is_array_like(out):
        raise TypeError(f"{message}was {out!r}.{advice}")
    aval = typeof(out)
    if getattr(aval, "shape", None) != ():
        raise TypeError(f"{message}had shape: {getattr(aval, 'shape', aval)}.{advice}")


def check_pair(result: object) -> None:
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TypeError("expected function with aux output to return a two-element tuple, but got "
                        f"type {type(result)} with value {result!r}")


def check_jvp_arguments(primals: object, tangents: object) -> tuple[list[jax.Array], list[jax.Array], PyTreeDef]:
    """Flat primals and tangents, and their common structure."""
    call = errors.user_call.get()
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise TypeError(f"primal and tangent arguments to jax.{call} must be tuples or lists; found {type(primals).__name__} and "
                        f"{type(tangents).__name__}. (dualrev.{call} takes what jax.{call} takes.)")
    check_leaves(tuple(primals), "primals")
    check_leaves(tuple(tangents), "tangents")
    flat_primals, tree = tree_flatten(tuple(primals))
    flat_tangents, tangent_tree = tree_flatten(tuple(tangents))
    structure: PyTreeDef = jax.tree_util.tree_structure(primals)  # in which a tuple is not a list
    if structure != jax.tree_util.tree_structure(tangents):
        raise TypeError(f"primal and tangent arguments to jax.{call} must have the same tree structure; primals have tree "
                        f"structure {tree} whereas tangents have tree structure {tangent_tree}.")
    for (path, x), t in zip(tree_flatten_with_path(tuple(primals))[0], flat_tangents, strict=True):
        aval, t_aval = typeof(x), typeof(t)
        expected = tangent_aval(aval)
        if t_aval.dtype != expected.dtype:
            raise TypeError(
                f"primal and tangent arguments to jax.{call} do not match; dtypes must be equal, or in case of int/bool primal "
                f"dtype the tangent dtype must be float0. Got primal dtype {aval.dtype} and so expected tangent dtype "
                f"{expected.dtype if expected.dtype != float0 else 'float0'}, but got tangent dtype {t_aval.dtype} instead "
                f"(at primals{keystr(path)})."
            )
        if t_aval.shape != aval.shape:
            raise ValueError(f"{call} called with different primal and tangent shapes; Got primal shape {aval.shape} and tangent "
                             f"shape as {t_aval.shape} (at primals{keystr(path)}).")
    return flat_primals, flat_tangents, tree


def check_moving(values: PyTree, tree: PyTreeDef, avals: Sequence[ShapedArray], what: str, of: str) -> list[Tangent]:
    """Flat tangents (cotangents) for values of ``avals``, None for jax's symbolic zeros; anything that does not fit is named."""
    call = errors.user_call.get()
    flat, given = tree_flatten(values, is_leaf=is_symbolic_zero)
    if given != tree:
        raise (TypeError if what == "tangent" else ValueError)(
            f"unexpected tree structure of the {what} given to {call}, which has the structure of the {of}s: "
            f"expected {tree}, got {given} (expected {spelled(tree, [tangent_aval(a) for a in avals])}, got "
            f"{spelled(given, [typeof(x) if is_array_like(x) else None for x in flat])})"
        )
    for (path, t), aval in zip(tree_flatten_with_path(values, is_leaf=is_symbolic_zero)[0], avals, strict=True):
        if is_symbolic_zero(t):  # jax's zeros, which programs written for jax may pass on
            continue
        if not is_array_like(t):
            raise TypeError(f"{call}: {what}{keystr(path)} is not an array but {t!r} of type {type(t).__name__}")
        expected, got = tangent_aval(aval), typeof(t)
        if expected.dtype == float0 and what == "cotangent":
            continue  # as in jax: a cotangent of an integer output is ignored
        if expected.shape != got.shape or expected.dtype != got.dtype:
            where = f" at {what}{keystr(path)}" if path else ""
            if what == "cotangent":
                raise ValueError(
                    f"unexpected JAX type (e.g. shape/dtype) for argument to {_VJP} function{where}: got {errors.short(got)}, but "
                    f"expected {errors.short(expected)} because the corresponding output of the differentiated function had JAX type "
                    f"{errors.short(aval)}"
                )
            raise ValueError(
                f"linearized function called on tangent values inconsistent with the original primal values{where}: got tangent "
                f"aval {errors.short(got)} for primal aval {errors.short(aval)} but expected {errors.short(expected)}"
            )
    return as_arrays([None if is_symbolic_zero(t) else t for t in flat])  # type: ignore[return-value]


def spelled(tree: PyTreeDef, avals: Sequence[ShapedArray | None]) -> str:
    """A structure with the types of its leaves, as people write them: ``{'w': float32[3], 'b': float32[]}``."""
    text = str(tree)
    text = text[len("PyTreeDef("):-1] if text.startswith("PyTreeDef(") else text
    parts = text.split("*")
    if len(parts) != len(avals) + 1:  # a node of the user's whose text has stars of its own
        return f"{text} of {', '.join(map(errors.short, avals))}"
    return "".join([part for pair in zip(parts, [*map(errors.short, avals), ""], strict=True) for part in pair])


def spread_flags(flags: Flags, tree: PyTreeDef, call: str, name: str) -> list[bool]:
    """A bool for each leaf, from a prefix of the structure; containers are matched by how many children they have."""
    if isinstance(flags, (bool, np.bool_)):
        return [bool(flags)] * tree.num_leaves
    kinds, children = tree_flatten(flags, is_leaf=lambda x: x is not flags)[0], tree.children()
    if flags is None or len(kinds) != len(children) or (len(kinds) == 1 and kinds[0] is flags):
        raise ValueError(f"{call}: {name} must be a bool, or a tree of bools that is a prefix of the primals, {tree}; got {flags!r}")
    return [flag for part, child in zip(kinds, children, strict=True) for flag in spread_flags(part, child, call, name)]


def check_engine(engine: object, allowed: tuple[str | None, ...], call: str) -> None:
    if engine not in allowed:
        names = ", ".join(repr(a) for a in allowed if a is not None)
        raise ValueError(f"{call}: engine must be one of {names}; got {engine!r}")


def check_linear_dtypes(in_avals: Sequence[ShapedArray], out_avals: Sequence[ShapedArray]) -> None:
    """A linear function maps floats (or complex numbers) to such, or integers to integers."""
    ins, outs = [a.dtype for a in in_avals], [a.dtype for a in out_avals]
    if all(_is_sub(d, np.inexact) for d in ins + outs) or all(_is_sub(d, np.integer) for d in ins + outs):
        return
    raise TypeError("linear_transpose only supports [float or complex] -> [float or complex], and integer -> integer functions, "
                    f"but got {ins} -> {outs}.")
