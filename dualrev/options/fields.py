"""Options as fields of a dataclass, and what is derived from a field.

A field has a type, a default and a sentence (:func:`option`).  The type gives the check of values (:func:`checks_of`) and the class of
keyword options (:func:`keyword_class`), which documents them and which type checkers read: a ``TypedDict``, the only type that
``**options`` can have.  Type checkers need its text in a file.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

#: ``check(call, value)`` raises TypeError or ValueError if the function named ``call`` may not be called with this value.
Check: TypeAlias = Callable[[str, Any], None]

T = TypeVar("T")


class Option(NamedTuple):
    """The documentation and the check of an option, which a field carries beside name, type and default."""

    doc: str
    check: Check | None


def option(default: T, doc: str, check: Check | None = None) -> T:
    """A field that is an option: its default, its documentation, and a check of its values if the type does not determine one."""
    field: T = dataclasses.field(default=default, metadata={"option": Option(doc, check)})
    return field


def checked_later(call: str, value: object) -> None:
    """No check yet: values of this option are checked together with the arguments of the call."""


def defaults_of(stated: type) -> dict[str, object]:
    """The options that a dataclass states, with their defaults."""
    return {field.name: field.default for field in dataclasses.fields(stated)}


def checks_of(stated: type) -> dict[str, Check]:
    """For each option, the check of its values: the one that its field states, or else the one of its type.

    Raises TypeError for a field without a check whose type has none.
    """
    types = get_type_hints(stated)
    return {field.name: field.metadata["option"].check or _check_of(field.name, types[field.name])
            for field in dataclasses.fields(stated)}


def _check_of(name: str, kind: object) -> Check:
    def of_flag(call: str, value: object) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"{call}: {name} must be True or False; got {value!r}")

    def of_choice(call: str, value: object) -> None:
        if not any(isinstance(value, type(x)) and value == x for x in get_args(kind)):
            raise ValueError(f"{call}: {name} must be {_one_of(get_args(kind))}; got {value!r}")

    def of_count(call: str, value: object) -> None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"{call}: {name} must be None or a whole number; got {value!r}")
        if value is not None and value < 1:
            raise ValueError(f"{call}: {name} must be at least 1; got {value}")

    if kind is bool:
        return of_flag
    if get_origin(kind) is Literal:
        return of_choice
    if kind == int | None:
        return of_count
    raise TypeError(f"the option {name} has the type {kind}, from which no check of its values follows: state one, check=")


def _one_of(values: tuple[object, ...]) -> str:
    *others, last = [repr(x) for x in values]
    return f"{', '.join(others)} or {last}" if others else last


# ----------------------------------------------------------------------------------------------------- the keywords, in Python


def keyword_class(stated: type, name: str, title: str) -> str:
    """The Python text of a ``TypedDict`` with the options that a dataclass states, and their documentation."""
    types = get_type_hints(stated)
    lines = [f"class {name}(TypedDict, total=False):", f'    """{title}', ""]
    for field in dataclasses.fields(stated):
        doc = " ".join(field.metadata["option"].doc.split())
        lines += textwrap.wrap(f"- ``{field.name}`` ({_text(field.default)}): {doc}", 132, initial_indent="    ",
                               subsequent_indent="      ", break_long_words=False, break_on_hyphens=False)
    lines += ['    """', "", *[f"    {field.name}: {_type(types[field.name])}" for field in dataclasses.fields(stated)]]
    return "\n".join(lines) + "\n"


def classes_in(stated: type) -> list[type]:
    """The classes of this package in the types of a dataclass's options."""
    found = [part for kind in get_type_hints(stated).values() for part in _parts(kind)]
    return sorted({part for part in found if isinstance(part, type) and part.__module__.startswith("dualrev.")},
                  key=lambda part: part.__name__)


def _parts(kind: object) -> Iterator[object]:
    if get_origin(kind) in (Union, UnionType):
        for part in get_args(kind):
            yield from _parts(part)
    else:
        yield kind


def _type(kind: object) -> str:
    if get_origin(kind) is Literal:
        return f"Literal[{', '.join(map(_text, get_args(kind)))}]"
    parts = list(_parts(kind))
    if len(parts) > 1:
        return " | ".join(map(_type, parts))
    return "None" if kind is NoneType else str(kind.__name__) if isinstance(kind, type) else str(kind).removeprefix("typing.")


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)
