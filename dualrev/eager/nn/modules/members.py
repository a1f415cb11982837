"""What a module holds: parameters, buffers and modules inside it, by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from dualrev.eager.core import dtypes
from dualrev.eager.core.hooks import changes
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.nn.parameter import Buffer, Parameter

_PLACES = ("_parameters", "_buffers", "_modules")


def type_name(x: object) -> str:
    """The type of a value as PyTorch's messages name it."""
    if isinstance(x, Tensor):
        return f"torch.{dtypes.type_name(array_of(x).dtype)}Tensor"
    kind = type(x)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


class Members:
    """Parameters, buffers and modules as attributes.  A member that is assigned again keeps its place in the order."""

    _parameters: OrderedDict[str, Parameter | None]
    _buffers: OrderedDict[str, Tensor | None]
    _modules: OrderedDict[str, Any]
    #: The names of the buffers that are no part of the state.
    _non_persistent_buffers_set: set[str]

    def __init__(self) -> None:
        for place in _PLACES:
            object.__setattr__(self, place, OrderedDict())
        object.__setattr__(self, "_non_persistent_buffers_set", set())

    def _get_name(self) -> str:
        return type(self).__name__

    # ----------------------------------------------------------------------------------------------------- attributes

    def __setattr__(self, name: str, value: object) -> None:
        changes.count += 1
        places = self.__dict__
        if "_parameters" not in places:
            if isinstance(value, (Parameter, Members)):
                raise AttributeError(f"cannot assign {'parameters' if isinstance(value, Parameter) else 'module'} before "
                                     "Module.__init__() call")
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self._leave("_parameters", name)
            self.register_parameter(name, value)
        elif name in self._parameters:
            if value is not None:
                raise TypeError(f"cannot assign '{type_name(value)}' as parameter '{name}' (torch.nn.Parameter or None expected)")
            self._parameters[name] = None
        elif isinstance(value, Members):
            self._leave("_modules", name)
            self._modules[name] = value
        elif name in self._modules:
            if value is not None:
                raise TypeError(f"cannot assign '{type_name(value)}' as child module '{name}' (torch.nn.Module or None expected)")
            self._modules[name] = None
        elif isinstance(value, Buffer) and name not in self._buffers:
            self._leave("_buffers", name)
            self.register_buffer(name, value, value.persistent)
        elif name in self._buffers:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"cannot assign '{type_name(value)}' as buffer '{name}' (torch.nn.Buffer, torch.Tensor or None "
                                "expected)")
            self._buffers[name] = value
        else:
            object.__setattr__(self, name, value)

    def _leave(self, place: str, name: str) -> None:
        """Take a name out of all places but one, before a member of that name is put there."""
        for other in _PLACES:
            if other != place:
                self.__dict__[other].pop(name, None)
        self.__dict__.pop(name, None)
        if place != "_buffers":
            self._non_persistent_buffers_set.discard(name)

    def __getattr__(self, name: str) -> Any:
        for place in _PLACES:
            found = self.__dict__.get(place)
            if found is not None and name in found:
                return found[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        changes.count += 1
        for place in _PLACES:
            if name in self.__dict__[place]:
                del self.__dict__[place][name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]

    # --------------------------------------------------------------------------------------------------- registration

    def _check_name(self, kind: str, name: object, place: str) -> None:
        """Refuse what cannot name a new member.

        Raises:
          AttributeError: ``Module.__init__`` has not run.
          TypeError: the name is no string.
          KeyError: the name is empty, has a dot, or is taken by another attribute.
        """
        if place not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type_name(name)}")
        if hasattr(self, name) and name not in self.__dict__[place]:
            raise KeyError(f"attribute '{name}' already exists")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain "."' + (f", got: {name}" if kind == "module" else ""))
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        changes.count += 1

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a tensor that belongs to the state and is not a parameter."""
        self._check_name("buffer", name, "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"cannot assign '{type_name(tensor)}' object to buffer '{name}' (torch Tensor or None required)")
        self._buffers[name] = tensor
        (self._non_persistent_buffers_set.discard if persistent else self._non_persistent_buffers_set.add)(name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register a parameter, or None in its place."""
        self._check_name("parameter", name, "_parameters")
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(f"cannot assign '{type_name(param)}' object to parameter '{name}' (torch.nn.Parameter or None "
                                "required)")
            if param.grad_fn is not None:
                raise ValueError(f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created explicitly. "
                                 f"To express '{name}' as a function of another Tensor, compute the value in the forward() method.")
        self._parameters[name] = param

    def add_module(self, name: str, module: Any) -> None:
        """Register a module inside this one, or None in its place."""
        if module is not None and not isinstance(module, Members):
            raise TypeError(f"{type_name(module)} is not a Module subclass")
        self._check_name("module", name, "_modules")
        self._modules[name] = module

    def register_module(self, name: str, module: Any) -> None:
        """As :meth:`add_module`."""
        self.add_module(name, module)

    # ------------------------------------------------------------------------------------------------- what is inside

    def named_modules(self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
                      ) -> Iterator[tuple[str, Any]]:
        """This module and all inside it, with their names."""
        seen: set[Any] = set() if memo is None else memo
        waiting: list[tuple[str, Any]] = [(prefix, self)]
        while waiting:
            name, module = waiting.pop()
            if module not in seen:
                if remove_duplicate:
                    seen.add(module)
                yield name, module
                waiting.extend([(f"{name}.{n}" if name else n, m) for n, m in reversed(module._modules.items()) if m is not None])

    def modules(self) -> Iterator[Any]:
        """This module and all inside it."""
        return (m for _, m in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """The modules directly inside, with their names."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Any]:
        """The modules directly inside."""
        return (m for _, m in self.named_children())

    def _named(self, place: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        inside = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else iter([(prefix, self)])
        for before, module in inside:
            for name, x in module.__dict__[place].items():
                if x is not None and id(x) not in seen:
                    if remove_duplicate:
                        seen.add(id(x))
                    yield (f"{before}.{name}" if before else name), x

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
                         ) -> Iterator[tuple[str, Parameter]]:
        """All parameters, with their names."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """All buffers, with their names."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    # ------------------------------------------------------------------------------------------------- by a dotted name

    def get_submodule(self, target: str) -> Any:
        """The module of a dotted name, ``"encoder.layers.0"``; of the empty name, this one."""
        module: Any = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Members):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Any) -> None:
        """Put a module in the place of a dotted name."""
        if target == "":
            raise ValueError("Cannot set the submodule without a target name!")
        before, _, name = target.rpartition(".")
        setattr(self.get_submodule(before), name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of a dotted name."""
        return self._member(target, "_parameters", "nn.Parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer of a dotted name."""
        return self._member(target, "_buffers", "buffer")

    def _member(self, target: str, place: str, kind: str) -> Any:
        before, _, name = target.rpartition(".")
        module = self.get_submodule(before)
        if not hasattr(module, name):
            raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
        if name not in module.__dict__[place]:
            raise AttributeError(f"`{name}` is not {'an' if kind[0] == 'n' else 'a'} {kind}")
        return module.__dict__[place][name]
