"""Parameters that are functions of others: ``torch.nn.utils.parametrize``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from dualrev.eager.core.modes import no_grad
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.containers import ModuleDict, ModuleList
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import Parameter


class _Cache:
    """The values that are kept while :func:`cached` is entered."""

    def __init__(self) -> None:
        self.depth = 0
        self.values: dict[tuple[int, str], Tensor] = {}


_cache = _Cache()


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Compute each parametrized tensor once inside."""
    _cache.depth += 1
    try:
        yield
    finally:
        _cache.depth -= 1
        if not _cache.depth:
            _cache.values = {}


def inverse(parametrization: Module, value: Any) -> Any:
    """What a value is computed from; the value itself, where the parametrization does not say."""
    try:
        return parametrization.right_inverse(value) if hasattr(parametrization, "right_inverse") else value
    except NotImplementedError:
        return value


class ParametrizationList(ModuleList):
    """The functions that a tensor goes through, and the tensors, ``original`` or ``original0``, ..., that it is computed from."""

    def __init__(self, modules: list[Module], original: Tensor, unsafe: bool = False):
        if not modules:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        new: Any = original
        with no_grad():
            for module in reversed(modules):
                new = inverse(module, new)
        if not isinstance(new, (Tensor, list, tuple)):
            raise ValueError("'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got "
                             f"{type(new).__name__}")
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if self.is_tensor else len(new)
        wants_grad = original.requires_grad
        for name, x in zip(self._names(), [new] if self.is_tensor else new, strict=True):
            value = original if x is original else x.detach()
            if isinstance(original, Parameter):
                self.register_parameter(name, value if isinstance(value, Parameter) else Parameter(value, wants_grad))
            else:
                self.register_buffer(name, value)
        if not unsafe:
            again = self()
            if not isinstance(again, Tensor):
                raise ValueError(f"A parametrization must return a tensor. Got {type(again).__name__}.")
            if again.dtype != original.dtype:
                raise ValueError("Registering a parametrization may not change the dtype of the tensor, unless `unsafe` flag is "
                                 f"enabled.\nunparametrized dtype: {original.dtype}\nparametrized dtype: {again.dtype}")
            if again.shape != original.shape:
                raise ValueError("Registering a parametrization may not change the shape of the tensor, unless `unsafe` flag is "
                                 f"enabled.\nunparametrized shape: {original.shape}\nparametrized shape: {again.shape}")

    def _names(self) -> list[str]:
        return ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals to those that give a value."""
        new: Any = value
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(f"parametrization {type(module).__name__} does not implement right_inverse.")
                new = module.right_inverse(new)
            for name, x in zip(self._names(), [new] if self.is_tensor else new, strict=True):
                getattr(self, name).data = x.detach()

    def forward(self) -> Tensor:
        first, *others = self
        x = first(*[getattr(self, name) for name in self._names()])
        for module in others:
            x = module(x)
        return x


def _parametrized_class(module: Module) -> None:
    """Make the module one of a class of its own, which can have properties."""
    own = type(module)
    object.__setattr__(module, "__class__", type(f"Parametrized{own.__name__}", (own,), {"__module__": own.__module__}))


def _add_property(module: Module, name: str) -> None:
    def read(self: Any) -> Tensor:
        which: ParametrizationList = self.parametrizations[name]
        if not _cache.depth:
            return which()
        key = (id(self), name)
        if key not in _cache.values:
            _cache.values[key] = which()
        return _cache.values[key]

    def write(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    setattr(type(module), name, property(read, write))


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> Module:
    """Compute a parameter or buffer of a module by another module from now on.

    A method ``right_inverse`` of the first parametrization says what the present value is computed from; a further one is applied to
    what the others give.

    >>> from dualrev import eager as torch
    >>> class Symmetric(torch.nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).T
    >>> layer = torch.nn.utils.parametrize.register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
    >>> torch.equal(layer.weight, layer.weight.T)
    True
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        # As in PyTorch, the original stays: the value becomes that of the new parametrization.
        found: Any = module.parametrizations[tensor_name]
        found.append(parametrization)
        return module
    if tensor_name not in module._parameters and tensor_name not in module._buffers:
        raise ValueError(f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name '{tensor_name}'")
    original: Any = getattr(module, tensor_name)
    made = ParametrizationList([parametrization], original, unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        _parametrized_class(module)
        module.parametrizations = ModuleDict()
    _add_property(module, tensor_name)
    module.parametrizations[tensor_name] = made
    return module


def transfer_parametrizations_and_params(from_module: Module, to_module: Module, tensor_name: str | None = None) -> Module:
    """Parametrize tensors of a module as those of another one are, and take over what they are computed from.

    Args:
      tensor_name: the one tensor to transfer; all parametrized ones by default.
    """
    if is_parametrized(from_module):
        given: Any = from_module.parametrizations
        for name in list(given) if tensor_name is None else [tensor_name]:
            if not hasattr(to_module, name):
                setattr(to_module, name, Parameter(getattr(from_module, name)))
            for parametrization in list(given[name]):
                register_parametrization(to_module, name, parametrization)
            taken: Any = to_module.parametrizations
            for original in given[name]._names():
                setattr(taken[name], original, getattr(given[name], original))
    return to_module


def type_before_parametrizations(module: Module) -> type[Module]:
    """The class that a module was of before it was parametrized."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module has parametrized tensors, or one of this name."""
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make a tensor an ordinary parameter again, with its present value, or else with that of the original."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    found: Any = module.parametrizations[tensor_name]
    if not leave_parametrized and not found.is_tensor:
        raise ValueError("Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms of a "
                         "sequence of tensors.")
    original = getattr(found, found._names()[0])
    with no_grad():
        value = getattr(module, tensor_name).detach() if leave_parametrized else original.detach()
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if isinstance(original, Parameter):
        module.register_parameter(tensor_name, Parameter(value, original.requires_grad))
    else:
        module.register_buffer(tensor_name, value)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        object.__setattr__(module, "__class__", type(module).__bases__[0])
    return module
