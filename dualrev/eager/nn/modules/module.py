"""Modules: parameters, buffers, modules inside, and how they are called."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from dualrev.eager.core import dtypes
from dualrev.eager.core.hooks import RemovableHandle, changes
from dualrev.eager.core.modes import mode, no_grad
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.backward_hooks import call_watched
from dualrev.eager.nn.parameter import Parameter
from dualrev.eager.ops.creation import tensor


class IncompatibleKeys(NamedTuple):
    """The names that ``load_state_dict`` did not find, and those that the module does not have."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class Module:
    """A part of a model: parameters, buffers, modules inside it, and ``forward``.

    >>> from dualrev import eager as torch
    >>> class Twice(torch.nn.Module):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> Twice()(torch.ones(1))
    tensor([2.])
    """

    training: bool

    def __init__(self) -> None:
        for name in ("_parameters", "_buffers", "_modules"):
            object.__setattr__(self, name, OrderedDict())
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            object.__setattr__(self, name, {})
        object.__setattr__(self, "_transient", set())
        object.__setattr__(self, "training", True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if mode.watcher is not None:
            mode.watcher.guards.module(self)
        if not (self._forward_hooks or self._forward_pre_hooks or self._backward_hooks):
            return self.forward(*args, **kwargs)
        for hook in list(self._forward_pre_hooks.values()):
            given = hook(self, args)
            if given is not None:
                args = given if isinstance(given, tuple) else (given,)
        if self._backward_hooks:
            return call_watched(self, args, kwargs)
        return self._finish(args, self.forward(*args, **kwargs))

    def _finish(self, args: tuple[Any, ...], result: Any) -> Any:
        for hook in list(self._forward_hooks.values()):
            given = hook(self, args, result)
            if given is not None:
                result = given
        return result

    # --------------------------------------------------------------------------------------------------- members

    def __setattr__(self, name: str, value: Any) -> None:
        places = self.__dict__
        changes.count += 1
        if "_parameters" not in places:
            if isinstance(value, (Parameter, Module)):
                raise AttributeError(f"cannot assign {'parameters' if isinstance(value, Parameter) else 'module'} before "
                                     "Module.__init__() call")
            object.__setattr__(self, name, value)
            return
        if isinstance(value, Parameter):
            self._forget(name)
            self._parameters[name] = value
        elif isinstance(value, Module):
            self._forget(name)
            self._modules[name] = value
        elif name in self._parameters:
            if value is not None:
                raise TypeError(f"cannot assign '{type(value).__name__}' as parameter '{name}' (torch.nn.Parameter or None expected)")
            self._parameters[name] = None
        elif name in self._buffers:
            self._buffers[name] = value
        elif name in self._modules and value is None:
            self._modules[name] = None
        else:
            object.__setattr__(self, name, value)

    def _forget(self, name: str) -> None:
        changes.count += 1
        for place in (self.__dict__, self._parameters, self._buffers, self._modules):
            place.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        for place in ("_parameters", "_buffers", "_modules"):
            found = self.__dict__.get(place)
            if found is not None and name in found:
                return found[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        self._forget(name)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a tensor that belongs to the state and is not a parameter."""
        self._forget(name)
        self._buffers[name] = tensor
        if not persistent:
            self._transient.add(name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register a parameter, or None in its place."""
        self._forget(name)
        self._parameters[name] = param

    def add_module(self, name: str, module: Module | None) -> None:
        """Register a module inside this one."""
        self._forget(name)
        self._modules[name] = module

    register_module = add_module

    # ------------------------------------------------------------------------------------------------ what is inside

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all inside it, with their names."""
        seen: set[int] = set()
        waiting = [(prefix, self)]
        while waiting:
            name, module = waiting.pop()
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module
                waiting.extend([(f"{name}.{n}" if name else n, m) for n, m in reversed(module._modules.items()) if m is not None])

    def modules(self) -> Iterator[Module]:
        """This module and all inside it."""
        return (m for _, m in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside, with their names."""
        return ((n, m) for n, m in self._modules.items() if m is not None)

    def children(self) -> Iterator[Module]:
        """The modules directly inside."""
        return (m for _, m in self.named_children())

    def _named(self, place: str, recurse: bool = True) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules() if recurse else [("", self)]:
            for name, x in getattr(module, place).items():
                if x is not None and id(x) not in seen:
                    seen.add(id(x))
                    yield (f"{prefix}.{name}" if prefix else name), x

    def named_parameters(self, recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """All parameters, with their names."""
        return self._named("_parameters", recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters."""
        return (p for _, p in self.named_parameters(recurse))

    def named_buffers(self, recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """All buffers, with their names."""
        return self._named("_buffers", recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers."""
        return (b for _, b in self.named_buffers(recurse))

    # ------------------------------------------------------------------------------------------------------- state

    def state_dict(self, prefix: str = "") -> OrderedDict[str, Tensor]:
        """Parameters and buffers by name, sharing storage."""
        state: OrderedDict[str, Tensor] = OrderedDict()
        for name, module in self.named_modules():
            for key, x in (*module._parameters.items(), *module._buffers.items()):
                if x is not None and key not in module._transient:
                    state[prefix + (f"{name}.{key}" if name else key)] = x.detach()
        return state

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:
        """Copy values by name.

        Raises:
          RuntimeError: names are missing or unexpected (unless ``strict=False``), or a shape differs.
        """
        own = self.state_dict()
        missing = [k for k in own if k not in state_dict]
        unexpected = [k for k in state_dict if k not in own]
        errors = []
        if strict and missing:
            errors.append("Missing key(s) in state_dict: " + ", ".join(f'"{k}"' for k in missing) + ". ")
        if strict and unexpected:
            errors.append("Unexpected key(s) in state_dict: " + ", ".join(f'"{k}"' for k in unexpected) + ". ")
        with no_grad():
            for key, x in own.items():
                if key in state_dict:
                    given = state_dict[key]
                    given = given if isinstance(given, Tensor) else tensor(given)
                    if given.shape != x.shape:
                        errors.append(f"size mismatch for {key}: copying a param with shape {given.shape} from checkpoint, the "
                                      f"shape in current model is {x.shape}.")
                    elif not errors:
                        x.copy_(given)
        if errors:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(errors))
        return IncompatibleKeys(missing, unexpected)

    def train(self, mode: bool = True) -> Any:
        """Set the training mode of this module and all inside it."""
        changes.count += 1
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self) -> Any:
        """Set the evaluation mode: ``train(False)``."""
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters():
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad = p.grad.detach().zero_()

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Whether operations on the parameters are recorded."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def apply(self, fn: Callable[[Module], Any]) -> Any:
        """Call ``fn`` on each module, the innermost first."""
        for module in reversed(list(self.modules())):
            fn(module)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Parameters and buffers in another dtype or on another device; whole numbers keep their dtype."""
        with no_grad():
            x: Any
            for x in (*self.parameters(), *self.buffers()):
                target = (args, kwargs)
                if not x.is_floating_point():
                    target = tuple([a for a in args if isinstance(a, str)]), {k: v for k, v in kwargs.items() if k == "device"}  # type: ignore[assignment]
                x.data = x.detach().to(*target[0], **target[1])
                if x.grad is not None:
                    x._grad = x.grad.to(*target[0], **target[1])
        return self

    def half(self) -> Any:
        """In float16."""
        return self.to(dtypes.float16)

    def bfloat16(self) -> Any:
        """In bfloat16."""
        return self.to(dtypes.bfloat16)

    def double(self) -> Any:
        """In float64."""
        return self.to(dtypes.float64)

    def float(self) -> Any:
        """In float32."""
        return self.to(dtypes.float32)

    def cpu(self) -> Any:
        """On the CPU."""
        return self.to(device="cpu")

    def cuda(self) -> Any:
        """On the GPU."""
        return self.to(device="cuda")

    # ------------------------------------------------------------------------------------------------------- hooks

    def register_forward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after forward; a result other than None replaces the output."""
        return RemovableHandle(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, args)`` before forward; a result other than None replaces the arguments."""
        return RemovableHandle(self._forward_pre_hooks, hook)

    def register_full_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` in backward; a result other than None replaces grad_input."""
        return RemovableHandle(self._backward_hooks, hook)

    # ------------------------------------------------------------------------------------------------------- looks

    def extra_repr(self) -> str:
        """The text in the parentheses of ``repr``."""
        return ""

    def __repr__(self) -> str:
        inside = [f"({name}): " + repr(m).replace("\n", "\n  ") for name, m in self._modules.items()]
        extra = self.extra_repr()
        if not inside:
            return f"{type(self).__name__}({extra})"
        return f"{type(self).__name__}({extra}\n  " + "\n  ".join(inside) + "\n)"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]
