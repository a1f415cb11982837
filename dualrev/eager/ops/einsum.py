"""Sums of products in Einstein's notation, and what is refused of an equation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dualrev.eager.core.caches import caches
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.precision import low_precision
from dualrev.eager.ops.registry import function

_ELLIPSIS = "."


def _letter(c: str, at: int) -> str:
    if not (c.isascii() and c.isalpha()):
        raise RuntimeError(f"einsum(): invalid subscript given at index {at} in the equation string, subscripts must be in [a-zA-Z]")
    return c


def _terms(text: str, n: int) -> list[str]:
    """The subscripts of each operand, where ``.`` stands for an ellipsis."""
    terms = [""]
    i = 0
    while i < len(text):
        c, k = text[i], len(terms) - 1
        if c == ".":
            if _ELLIPSIS in terms[-1]:
                raise RuntimeError(f"einsum(): found '.' for operand {k} for which an ellipsis was already found")
            if text[i: i + 3] != "...":
                raise RuntimeError(f"einsum(): found '.' for operand {k} that is not part of any ellipsis")
            terms[-1] += _ELLIPSIS
            i += 2
        elif c == ",":
            if len(terms) == n:
                raise RuntimeError("einsum(): fewer operands were provided than specified in the equation\n"
                                   f"the equation has {text.count(',') + 1}, and {n} are given")
            terms.append("")
        elif c != " ":
            terms[-1] += _letter(c, i)
        i += 1
    if len(terms) < n:
        raise RuntimeError("einsum(): more operands were provided than specified in the equation\n"
                           f"the equation has {len(terms)}, and {n} are given")
    return terms


def _output(text: str, start: int, terms: list[str]) -> str:
    """The subscripts of the result, where ``.`` stands for an ellipsis; ``start`` is where they begin in the equation."""
    found = ""
    i = 0
    while i < len(text):
        c = text[i]
        if c == ".":
            if _ELLIPSIS in found:
                raise RuntimeError("einsum(): found '.' for output but an ellipsis (...) was already found")
            if text[i: i + 3] != "...":
                raise RuntimeError("einsum(): found '.' for output that is not part of any ellipsis (...)")
            found += _ELLIPSIS
            i += 2
        elif c != " ":
            if _letter(c, start + i) in found:
                raise RuntimeError(f"einsum(): output subscript {c} appears more than once in the output")
            if not any(c in term for term in terms):
                raise RuntimeError(f"einsum(): output subscript {c} does not appear in the equation for any input operand")
            found += c
        i += 1
    return found


def _check_shapes(terms: list[str], shapes: tuple[tuple[int, ...], ...]) -> None:
    sizes: dict[str, int] = {}
    covered: list[int] = []  # by ellipses, from the last dimension on
    for k, (term, shape) in enumerate(zip(terms, shapes, strict=True)):
        n = len(term.replace(_ELLIPSIS, ""))
        if _ELLIPSIS not in term and n != len(shape):
            raise RuntimeError(f"einsum(): the number of subscripts in the equation ({n}) does not match the number of dimensions "
                               f"({len(shape)}) for operand {k} and no ellipsis was given\nits shape is {list(shape)}")
        if n > len(shape):
            raise RuntimeError(f"einsum(): the number of subscripts in the equation ({n}) is more than the number of dimensions "
                               f"({len(shape)}) for operand {k}\nits shape is {list(shape)}")
        before, _, after = term.partition(_ELLIPSIS)
        own: dict[str, int] = {}
        for letter, size in zip(before + after, (*shape[:len(before)], *shape[len(shape) - len(after):]), strict=True):
            if own.setdefault(letter, size) != size:
                raise RuntimeError(f"einsum(): subscript {letter} is repeated for operand {k} but the sizes don't match, {size} != "
                                   f"{own[letter]}\nits shape is {list(shape)}")
            if 1 not in (size, sizes.get(letter, size)) and sizes.get(letter, size) != size:
                raise RuntimeError(f"einsum(): subscript {letter} has size {size} for operand {k} which does not broadcast with "
                                   f"previously seen size {sizes[letter]}\nthe shapes are {[list(s) for s in shapes]}")
            sizes[letter] = max(size, sizes.get(letter, 1)) if size else size
        inner = shape[len(before): len(shape) - len(after)]
        for d, size in enumerate(reversed(inner)):
            if d == len(covered):
                covered.append(size)
            elif 1 not in (size, covered[d]) and size != covered[d]:
                raise RuntimeError(f"einsum(): dimension {len(inner) - 1 - d} covered by ellipsis in operand {k}has size {size} which "
                                   "does not broadcast with previously seen ellipsis with size "
                                   f"{covered[d]} for the respective dimension\nthe shapes are {[list(s) for s in shapes]}")
            elif covered[d] == 1:
                covered[d] = size


@caches.memoized
def _read(equation: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[str, bool]:
    """The equation with its result spelled out, and whether it becomes a product of matrices.

    Raises:
      RuntimeError: PyTorch's refusals.
    """
    left, arrow, right = equation.partition("->")
    terms = _terms(left, len(shapes))
    if arrow:
        after = _output(right, len(left) + 2, terms)
    else:
        every = "".join(terms)
        after = ("." if "." in every else "") + "".join(sorted({c for c in every if c != "." and every.count(c) == 1}))
    _check_shapes(terms, shapes)
    if not any("." in term for term in terms):
        after = after.replace(".", "")
    contracts = not arrow or any(c != "." and c not in after and sum(c in term for term in terms) > 1 for c in "".join(terms))
    text = f"{','.join(terms)}->{after}".replace(".", "...")
    return text, contracts and len(terms) > 1


def _guards(equation: str) -> dict[int, tuple[int, ...]] | None:
    """What PyTorch saves of two operands: one that it first sums over a letter of its own is saved as that sum."""
    before, _, after = equation.partition("->")
    terms = before.split(",")
    if len(terms) != 2 or "." in before:
        return None
    summed = [set(term) - set(other) - set(after) for term, other in (terms, terms[::-1])]
    return {i: () if summed[1 - i] else (1 - i,) for i in range(2)}


def _einsum_of(*args: Any) -> jax.Array:
    *arrays, equation = args
    return jnp.einsum(equation, *arrays)


_einsum = family("Einsum", _einsum_of, guards=_guards)
_low = low_precision(apply)


def _subscripts(of: Any) -> str:
    """A list of subscripts as letters, as PyTorch numbers them."""
    found = ""
    for s in of:
        if s is not Ellipsis and not 0 <= s < 52:
            raise ValueError("einsum(): subscript in subscript list is not within the valid range [0, 52)")
        found += "..." if s is Ellipsis else chr(ord("A") + s) if s < 26 else chr(ord("a") + s - 26)
    return found


@function
def einsum(*args: Any) -> Tensor:
    """A sum of products in Einstein's notation: of an equation and operands, or of operands, each before its list of subscripts.

    >>> from dualrev import eager as torch
    >>> torch.einsum("ij,j->i", torch.eye(2), torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    if len(args) < 2:
        raise ValueError("einsum(): must specify the equation string and at least one operand, or at least one operand and its "
                         "subscripts list")
    if isinstance(args[0], Tensor):
        operands: Any = args[:-1:2] if len(args) % 2 else args[::2]
        equation = ",".join(map(_subscripts, args[1::2])) + (f"->{_subscripts(args[-1])}" if len(args) % 2 else "")
    else:
        equation, *operands = args
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = operands[0]
    text, contracts = _read(equation, tuple([tuple(x.shape) for x in operands]))
    # Only what becomes a product of matrices has fewer bits.
    return (_low if contracts else apply)(_einsum(text), tuple(operands))
