"""Adapters before functions and methods: other names of arguments, PyTorch's and numpy's, and ``out=``.

Functions that need no adapter have none.  Without named arguments, an adapter calls the function as it was called.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.arguments import ALSO
from dualrev.eager.ops.outputs import all_into
from dualrev.eager.ops.precision import with_precision
from dualrev.eager.ops.registry import FUNCTIONS

#: The argument of functions that take sizes or dimensions one by one, or together under this name.
TOGETHER = {"flip": "dims", "permute": "dims", "reshape": "shape", "tile": "dims", "expand": "size", "broadcast_to": "size",
            "repeat": "repeats", "view": "size"}
#: Other names of arguments of single functions.
OWN = {
    "swapaxes": {"axis0": "dim0", "axis1": "dim1"},
    "split": {"tensor": "input", "split_size_or_sections": "split_size"},
}
#: The functions that take ``out=`` by their adapter; functions that make tensors take it themselves.
WITH_OUT = frozenset("""
    abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr all amax amin aminmax angle any arccos arccosh arcsin
    arcsinh arctan arctan2 arctanh argmax argmin asin asinh atan atan2 atanh baddbmm bitwise_and bitwise_left_shift bitwise_not
    bitwise_or bitwise_right_shift bitwise_xor bmm cat ceil chain_matmul cholesky cholesky_inverse cholesky_solve clamp
    clamp_max clamp_min clip column_stack complex concat concatenate conj_physical copysign cos cosh cross cummax cummin cumprod
    cumsum deg2rad diag diff digamma div divide dot dstack eq erf erfc erfinv exp exp2 expm1 fix float_power floor floor_divide
    fmax fmin fmod frac frexp gather gcd ge geqrf ger greater greater_equal gt heaviside hstack hypot i0 igamma igammac
    index_add index_copy index_reduce index_select inner inverse isneginf isposinf kron kthvalue lcm ldexp le lerp less
    less_equal lgamma log log10 log1p log2 log_softmax logaddexp logaddexp2 logcumsumexp logical_and logical_not logical_or
    logical_xor logit logsumexp lt lu_solve lu_unpack masked_select matmul matrix_power max maximum mean median min minimum mm
    mode msort mul multiply mv mvlgamma nan_to_num nanmean nanmedian nansum narrow_copy ne neg negative nextafter nonzero
    nonzero_static norm not_equal orgqr ormqr outer pinverse polar polygamma pow prod qr rad2deg reciprocal remainder round
    row_stack rsqrt scatter scatter_add scatter_reduce sgn sigmoid sign signbit sin sinc sinh slogdet softmax sort sqrt square
    stack std sub subtract sum svd take tan tanh topk triangular_solve tril triu true_divide trunc var vdot vstack where xlogy
""".split())  # noqa: SIM905  (a list of a hundred names is read as words)


def _other_names(name: str, parameters: dict[str, inspect.Parameter]) -> dict[str, str]:
    """The other names of arguments, and the names that the function has for them."""
    found = {other: own for own, others in ALSO.items() if own in parameters for other in others if other not in parameters}
    return {**found, **OWN.get(name, {})}


def _listed(sig: inspect.Signature, together: str | None, takes_out: bool) -> inspect.Signature:
    """The signature with what the adapter adds."""
    given = [p.replace(name=together) if together and p.kind is p.VAR_POSITIONAL else p for p in sig.parameters.values()]
    if takes_out and "out" not in sig.parameters:
        at = len(given) - (bool(given) and given[-1].kind is inspect.Parameter.VAR_KEYWORD)
        given.insert(at, inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None))
    return sig.replace(parameters=given)


def named(name: str, fun: Callable[..., Any], is_method: bool) -> Callable[..., Any]:
    """The function with an adapter before it, or the function itself if it needs none."""
    sig = inspect.signature(fun)
    parameters = dict(sig.parameters)
    takes_out = not is_method and name in WITH_OUT
    together = TOGETHER.get(name)
    others = _other_names(name, parameters)
    if is_method:
        others = {k: v for k, v in others.items() if v not in ("input", "self")}
    needs_tensor = not is_method and next(iter(parameters), None) == "input" and "other" not in parameters and name not in (
        "where", "pow", "is_tensor", "bucketize", "float_power")
    if not (takes_out or together or others or needs_tensor):
        return fun

    @functools.wraps(fun)
    def adapted(*args: Any, **kwargs: Any) -> Any:
        if needs_tensor and args and not isinstance(args[0], Tensor) and not hasattr(args[0], "dtype"):
            raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(args[0]).__name__}\n"
                            "torch.tensor(value) makes one")
        if not kwargs:
            return fun(*args)
        out = kwargs.pop("out", None) if takes_out else None
        for other, own in others.items():
            if other in kwargs:
                if own in kwargs:
                    raise TypeError(f"{name}() got multiple values for argument '{own}'\n'{other}' is another name of it")
                kwargs[own] = kwargs.pop(other)
        if together is not None and together in kwargs:
            if "input" in kwargs:
                args = (kwargs.pop("input"), *args)
            args = (*args, kwargs.pop(together))
        result = fun(*args, **kwargs)
        return result if out is None else all_into(out, result, name)

    adapted.__dict__["__signature__"] = _listed(sig, together, takes_out)
    return adapted


def complete() -> None:
    """Put adapters before all functions and methods that need one, and what ``autocast`` does to them."""
    FUNCTIONS.update(with_precision("torch", FUNCTIONS))
    for name, fun in with_precision("torch", dict(vars(Tensor))).items():
        setattr(Tensor, name, fun)
    for name, fun in list(FUNCTIONS.items()):
        if inspect.isfunction(fun):
            FUNCTIONS[name] = named(name, fun, False)
    for name, fun in list(vars(Tensor).items()):
        if inspect.isfunction(fun) and not name.startswith("_"):
            setattr(Tensor, name, named(name, fun, True))
