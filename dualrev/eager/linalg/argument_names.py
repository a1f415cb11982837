"""Names of arguments: PyTorch's documentation and its functions differ in them, and programs use either."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

#: Further names of arguments.
_ALSO = {"A": ("input",), "B": ("other", "b"), "input": ("A", "x"), "x": ("input",)}


def with_names(fun: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, which takes its arguments under their further names too."""
    parameters = inspect.signature(fun).parameters
    others = {other: own for own in parameters for other in _ALSO.get(own, ()) if other not in parameters}
    if not others:
        return fun

    @functools.wraps(fun)
    def named(*args: Any, **kwargs: Any) -> Any:
        for key in kwargs.keys() & others.keys():
            if others[key] in kwargs:
                raise TypeError(f"{name}() got multiple values for argument '{others[key]}'\n'{key}' is another name of it")
            kwargs[others[key]] = kwargs.pop(key)
        return fun(*args, **kwargs)

    return named
