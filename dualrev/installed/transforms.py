"""Which transforms of jax's dualrev has, what a block of ``dualrev.installed`` asks for, and its report."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import NamedTuple, TypeAlias

import jax

from dualrev._jax.trees import PyTree
from dualrev.functional import api, gradients, jacobians
from dualrev.options.settings import Options, Request

#: Names of modules, or the modules; one may stand alone.
Names: TypeAlias = Iterable[str | ModuleType] | str | ModuleType

#: dualrev's transforms, under jax's names.
TRANSFORMS: dict[str, Callable[..., PyTree]] = {
    function.__name__: function for function in (
        api.jvp, api.vjp, api.linearize, api.linear_transpose, gradients.grad, gradients.value_and_grad, jacobians.jacfwd,
        jacobians.jacrev, jacobians.jacobian, jacobians.hessian)}

#: jax's transforms, by name.
ORIGINALS: Mapping[str, Callable[..., PyTree]] = MappingProxyType({name: getattr(jax, name) for name in TRANSFORMS})

#: What jax has and dualrev has not.
MISSING = ("fwd_and_bwd",)


class Choice(NamedTuple):
    """What a block asks for."""

    transforms: tuple[str, ...]
    modules: tuple[str, ...] | None
    skip: tuple[str, ...]
    options: Options

    @staticmethod
    def of(transforms: Iterable[str] | None, modules: Names | None, skip: Names, options: Options) -> Choice:
        names = tuple(TRANSFORMS) if transforms is None else _names(transforms, "transforms")
        for name in names:
            if name not in TRANSFORMS:
                raise ValueError(f"installed: transforms must be among {', '.join(TRANSFORMS)}; got {name!r}")
        Request.of("installed", options)
        return Choice(names, None if modules is None else _names(modules, "modules"), _names(skip, "skip"), options)

    def covers(self, name: str, module: str) -> bool:
        if within(module, self.skip):
            return False
        return name == "JVPTracer" or (name in self.transforms and (self.modules is None or within(module, self.modules)))

    def key(self) -> Hashable:
        """Equal for choices under which programs are traced alike."""
        try:
            options = frozenset(self.options.items())
        except TypeError:  # an option that has no hash
            return self
        return frozenset(self.transforms), self.modules, self.skip, options

    def __hash__(self) -> int:
        return id(self)


def _names(given: Names, what: str) -> tuple[str, ...]:
    items: object = (given,) if isinstance(given, (str, ModuleType)) else given
    if not isinstance(items, Iterable):
        raise TypeError(f"installed: {what} must be a name or a sequence of names; got {given!r}")
    names = tuple([x.__name__ if isinstance(x, ModuleType) else x for x in items])
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"installed: {what} must be names; got {name!r} of type {type(name).__name__}")
    return names


def within(module: str, prefixes: Sequence[str]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


class Report(Mapping[str, tuple[str, ...]]):
    """What a block put in place of jax's transforms, and where: a mapping from each transform's name to the places.

    ``print(report)`` shows it by module.  Modules that are imported in the block are added when it ends.  ``report.places`` are all
    places; ``report.left`` is a mapping from each place that could not be changed to the reason.
    """

    def __init__(self, choice: Choice, found: Iterable[tuple[str, str]], left: Mapping[str, str]):
        self._choice = choice
        self._found: list[tuple[str, str]] = []
        self.left = dict(left)
        self._add(found)

    def _add(self, found: Iterable[tuple[str, str]]) -> None:
        self._found = sorted({*self._found, *found}, key=lambda item: (not within(item[1], ("jax",)), item[1], item[0]))

    @property
    def options(self) -> Options:
        """The options with which dualrev's transforms are called."""
        return self._choice.options

    @property
    def places(self) -> tuple[str, ...]:
        """Where something was replaced: ``module.name``, and further inside it."""
        return tuple(dict.fromkeys(place for _, place in self._found))

    def __getitem__(self, name: str) -> tuple[str, ...]:
        places = tuple([place for found, place in self._found if found == name])
        if not places:
            raise KeyError(name)
        return places

    def __iter__(self) -> Iterator[str]:
        found = {name for name, _ in self._found}
        return iter([name for name in (*TRANSFORMS, "JVPTracer") if name in found])

    def __len__(self) -> int:
        return len({name for name, _ in self._found})

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __str__(self) -> str:
        lines = [f"dualrev's transforms stand in {len(self._found)} places:"]
        by_module: dict[str, list[str]] = {}
        for name, place in self._found:
            module, _, held = place.rpartition(".") if "[" not in place else ("", "", place)
            by_module.setdefault(module or held, []).append(name if held == name or not module else f"{held} ({name})")
        lines += [f"  {module}: {', '.join(names)}" for module, names in by_module.items()]
        if self.left:
            lines += ["left as they are:", *[f"  {place}: {why}" for place, why in self.left.items()]]
        return "\n".join(lines)

    __repr__ = __str__
