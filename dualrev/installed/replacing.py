"""``installed``: a whole program, libraries included, differentiates with dualrev in place of jax.

A *stand-in* for each of jax's transforms is put wherever modules hold the transform (see :mod:`dualrev.installed.holders`).  Called,
it looks for the last opened block that asks for it, and runs dualrev's transform; where there is none it runs jax's, so that one that
someone kept does no harm.  jax's own modules keep jax's transforms: their derivatives of each other stay what they are.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType, FunctionType, ModuleType
from typing import Any, Protocol, TypeAlias, Unpack

import jax

from dualrev._jax.library_functions import is_inside_jax
from dualrev._jax.traces import JVPTracer
from dualrev._jax.trees import PyTree
from dualrev.engines.forward import Dual
from dualrev.engines.reverse import Taped
from dualrev.installed.holders import Place, Search, are_held_deeper, objects_holding
from dualrev.installed.transforms import MISSING, ORIGINALS, TRANSFORMS, Choice, Report, within
from dualrev.options.settings import Options


def _stand_in(name: str) -> Callable[..., PyTree]:
    original, ours = ORIGINALS[name], TRANSFORMS[name]
    # jax's jacobian pulls, whatever the sizes; functions whose rules are only good for that rely on it.
    always = {"engine": "reverse"} if name == "jacobian" else {}

    @functools.wraps(original)
    def transform(*args: PyTree, **kwargs: Any) -> PyTree:
        block = _asking(name)
        if block is None:
            return original(*args, **kwargs)
        return ours(*args, **{**always, **({} if name == "linear_transpose" else block.options), **kwargs})

    transform.__module__ = "jax"  # a pickle says where to find it, and there it is
    return transform


class _Pushed(type(JVPTracer)):  # type: ignore[misc]
    """The class of the class that stands in for jax's ``JVPTracer``: a value that dualrev differentiates is an instance too."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, (JVPTracer, Dual, Taped))

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, (JVPTracer, Dual, Taped))

    def __call__(cls, *args: Any) -> JVPTracer:
        return JVPTracer(*args)


def _tracer_stand_in() -> type:
    body = {"__module__": JVPTracer.__module__, "__qualname__": JVPTracer.__qualname__, "__doc__": JVPTracer.__doc__, "__slots__": ()}
    return _Pushed("JVPTracer", (JVPTracer,), body)


#: A transform: of functions, to what each returns.
Transform: TypeAlias = Callable[..., PyTree]

#: For each name, what is looked for and what comes in its place.
PAIRS: dict[str, tuple[Transform, Transform]] = {name: (ORIGINALS[name], _stand_in(name)) for name in TRANSFORMS}
PAIRS["JVPTracer"] = JVPTracer, _tracer_stand_in()


# ----------------------------------------------------------------------------------------------------------- open blocks


_lock = threading.RLock()
#: The reports of the blocks that are open, the last opened at the end.
_open: tuple[Report, ...] = ()
#: All that is replaced now.
_replaced: list[Place] = []
#: Those of :func:`install`.
_lasting: list[Report] = []


def _asking(name: str) -> Choice | None:
    """The choice of the last opened block that asks for a transform, for whoever calls the stand-in."""
    module: str | None = None
    for report in reversed(_open):
        choice = report._choice
        if choice.modules is None and not choice.skip:
            if name in choice.transforms:
                return choice
        else:
            if module is None:
                module = _caller()
            if choice.covers(name, module):
                return choice
    return None


def _caller() -> str:
    """The module that calls a stand-in, directly or by way of jax (``jax.vmap(functools.partial(jax.jvp, f))(...)``)."""
    frame: FrameType | None = sys._getframe(3)
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if not within(name, ("jax", "dualrev", "functools", "contextlib")):
            return name
        frame = frame.f_back
    return "__main__"


def _is_kept(module: str) -> bool:
    """Whether a module keeps jax's transforms, whatever is asked for: jax's own workings, and this package."""
    return is_inside_jax(module) or within(module, ("dualrev",))


class UserContext(Protocol):
    """A value by which jax keeps compiled programs apart."""

    def set_global(self, value: object, /) -> None: ...


@functools.cache
def _compiled_for() -> UserContext:
    # Programs compiled in a block and outside are kept apart by jax, which compiles anew where this value is another.
    context: UserContext = jax.make_user_context(None)
    return context


def _tell_jax() -> None:
    keys = dict.fromkeys(report._choice.key() for report in reversed(_open))
    _compiled_for().set_global(tuple(keys) or None)


def _enter(choice: Choice) -> Report:
    global _open
    with _lock:
        wanted = {name: PAIRS[name] for name in (*choice.transforms, "JVPTracer")}
        search = Search({id(old): (name, new) for name, (old, new) in wanted.items()},
                        lambda module: _is_kept(module) or within(module, choice.skip), _remark(wanted))
        search.modules(list(sys.modules.items()))
        left = {place: why for place, why in search.left.items() if not within(place, ("jax",))}
        left |= _left_in_jax(choice) | _left_in_objects(choice)
        done: list[Place] = []
        for place in search.places:
            if not choice.covers(place.name, place.module) and place.module != "jax":
                continue
            try:
                place.replace()
            except (AttributeError, TypeError) as error:
                left[place.where] = f"it can't be changed: {error}"
            else:
                done.append(place)
        _replaced.extend(done)
        there = [(place.name, place.where) for place in _replaced
                 if place.name in wanted and (choice.covers(place.name, place.module) or place.module == "jax")]
        report = Report(choice, there, left)
        _open = (*_open, report)
        _tell_jax()
        return report


def _leave(report: Report) -> None:
    global _open
    with _lock:
        _open = tuple([other for other in _open if other is not report])
        rest = [other._choice for other in _open]
        _restore(rest)
        # Modules that were imported meanwhile hold the stand-ins that they found in jax.
        over = {name: pair for name, pair in PAIRS.items()
                if not (rest if name == "JVPTracer" else any(name in choice.transforms for choice in rest))}
        if over:
            search = Search({id(new): (name, old) for name, (old, new) in over.items()}, _is_kept, lambda _: None)
            functions = tuple([new for name, (_, new) in over.items() if name != "JVPTracer"])
            search.modules(list(sys.modules.items()), deep=are_held_deeper(functions, PAIRS.values()))
            for place in search.places:
                place.replace()
            report._add([(place.name, place.where) for place in search.places])
        _tell_jax()


def _restore(rest: Sequence[Choice]) -> None:
    """Put back what none of the remaining choices asks for."""
    global _replaced
    stays = []
    for place in _replaced:
        if any(choice.covers(place.name, place.module) or (place.module == "jax" and place.name in choice.transforms)
               for choice in rest):
            stays.append(place)
        else:
            place.restore()
    _replaced = stays


def _left_in_jax(choice: Choice) -> dict[str, str]:
    left = {f"jax.{name}": f"dualrev has no {name}; it stays jax's" for name in MISSING
            if choice.modules is None and hasattr(jax, name) and len(choice.transforms) == len(TRANSFORMS)}
    for name in choice.transforms:
        now = getattr(jax, name)
        if now not in PAIRS[name]:
            left[f"jax.{name}"] = f"it is not jax's own but {now!r}, which someone put there"
    if choice.modules is None:
        left["jax._src"] = "jax's own functions that differentiate, such as jax.scipy.optimize.minimize, use jax's transforms"
    return left


def _left_in_objects(choice: Choice) -> dict[str, str]:
    """Attributes of objects: who made the object chose what it holds, and may share it with programs outside the block."""
    held = {id(ORIGINALS[name]): ORIGINALS[name] for name in choice.transforms}
    left = {}
    for owner, attribute, value in objects_holding(held, _is_kept):
        cls = type(owner)
        if choice.covers(value.__name__, cls.__module__):
            left[f"<{cls.__module__}.{cls.__qualname__} object>.{attribute}"] = (
                f"the object took jax.{value.__name__} before the block; make it inside")
    return left


def _remark(wanted: Mapping[str, object]) -> Callable[[FunctionType | ModuleType], str | None]:
    """The report's entry for an object that differentiates, or holds one that does, and is not replaced."""

    def remark(value: FunctionType | ModuleType) -> str | None:
        if isinstance(value, ModuleType):
            if value.__name__ in ("jax._src.api", "jax._src.interpreters.ad"):
                return f"it is {value.__name__}, a part of jax's own workings: what is looked up there stays jax's"
            return None
        if value.__code__ is not _BOUNDARY:
            return None
        for cell in value.__closure__ or ():
            code = getattr(cell.cell_contents, "__code__", None)
            made_by, _, rest = getattr(code, "co_qualname", "").partition(".<locals>.")
            if rest and made_by in wanted:
                return f"jax.{made_by} made it before the block; make it inside"
        return None

    return remark


#: The code of jax's wrapper around its transforms and what they return, which cuts tracebacks.
_BOUNDARY = getattr(ORIGINALS["grad"], "__code__", None)


# ----------------------------------------------------------------------------------------------------------- public names


class installed(contextlib.ContextDecorator):
    r"""Put dualrev's transforms in place of jax's, in every module, while a block runs.

    ``jax.grad, value_and_grad, jvp, vjp, linearize, linear_transpose, jacfwd, jacrev, jacobian, hessian`` are then dualrev's,
    :math:`J v` and :math:`J^{\mathsf T} u` from its table, for the program's own modules and for libraries: names that modules
    imported, attributes of classes, defaults and closures of functions, ``functools.partial``, dicts, lists and tuples.  Afterwards
    everything is as it was.  jax's own modules (``jax._src``) keep jax's transforms.

    The block holds for all threads of the process.  Blocks may be nested and overlap: a transform is dualrev's while any block asks
    for it, with the options of the last opened one.  Programs compiled outside are not used inside, nor the other way round;
    functions that a transform made stay what they are.

    Args:
      transforms: names of the transforms to replace; all of them by default.
      modules: names of modules or packages; then only their calls go to dualrev.
      skip: names of modules or packages whose calls stay jax's.
      options: passed to dualrev's transforms, as in :class:`~dualrev.options.settings.Options`; ``linear_transpose`` takes none.

    Returns:
      A context manager, and decorator, whose value is a :class:`Report`: what was replaced where, and what could not be, and why.

    Raises:
      TypeError, ValueError: names or options that do not exist.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> def f(x):                                          # jax has no reverse mode for it
    ...     return jax.lax.while_loop(lambda y: y < 10.0, lambda y: y * x, x)
    >>> with dr.installed() as report:
    ...     print(jax.grad(f)(2.0))
    32.0
    >>> "jax.grad" in report["grad"]
    True
    """

    def __init__(self, transforms: Iterable[str] | None = None, *, modules: Iterable[str | ModuleType] | str | None = None,
                 skip: Iterable[str | ModuleType] | str = (), **options: Unpack[Options]):
        self._choice = Choice.of(transforms, modules, skip, options)
        self._entered: list[Report] = []

    def __enter__(self) -> Report:
        report = _enter(self._choice)
        self._entered.append(report)
        return report

    def __exit__(self, *_: object) -> None:
        _leave(self._entered.pop())


def install(transforms: Iterable[str] | None = None, *, modules: Iterable[str | ModuleType] | str | None = None,
            skip: Iterable[str | ModuleType] | str = (), **options: Unpack[Options]) -> Report:
    r"""Put dualrev's transforms in place of jax's, in every module, until :func:`uninstall`.

    Args:
      transforms, modules, skip, options: as in :class:`installed`.

    Returns:
      The :class:`Report`: what was replaced where.

    Raises:
      TypeError, ValueError: as :class:`installed`.

    >>> import jax, dualrev as dr
    >>> report = dr.install(transforms=["grad"])
    >>> list(report)
    ['grad', 'JVPTracer']
    >>> dr.uninstall()
    """
    report = _enter(Choice.of(transforms, modules, skip, options))
    with _lock:
        _lasting.append(report)
    return report


def uninstall(report: Report | None = None) -> None:
    """Undo an :func:`install`: the last one, or the one that returned ``report``.

    Args:
      report: what the ``install`` that is to be undone returned; by default, the last one is undone.

    Raises:
      RuntimeError: there is nothing to undo.

    >>> import jax, dualrev as dr
    >>> before = jax.grad
    >>> first, second = dr.install(), dr.install()
    >>> dr.uninstall(first)
    >>> dr.uninstall()
    >>> jax.grad is before
    True
    """
    with _lock:
        which = _lasting[-1] if report is None and _lasting else report
        if which not in _lasting:
            asked = "nothing is installed" if report is None else "what returned this report is not installed (any more)"
            raise RuntimeError(f"uninstall: {asked}; each install() can be undone once")
        _lasting.remove(which)
        _leave(which)
