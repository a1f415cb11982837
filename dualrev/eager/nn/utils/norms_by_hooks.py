"""The older ``weight_norm`` and ``spectral_norm``, which compute the weight in a hook before each forward pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from dualrev.eager.core.modes import no_grad
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import Parameter
from dualrev.eager.nn.utils.parametrizations import as_matrix, norm_except, power_steps
from dualrev.eager.ops.sampling import randn


class _Hook:
    """Base class: a hook that sets one weight of a module."""

    def __init__(self, name: str, dim: int):
        self.name, self.dim = name, dim

    def compute_weight(self, module: Any) -> Tensor:
        raise NotImplementedError

    def __call__(self, module: Any, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


class WeightNorm(_Hook):
    """The product of a norm ``g`` and a direction ``v``."""

    def compute_weight(self, module: Any) -> Tensor:
        v = getattr(module, self.name + "_v")
        return v * (getattr(module, self.name + "_g") / norm_except(v, self.dim))


class SpectralNorm(_Hook):
    """The weight divided by its largest singular value."""

    def __init__(self, name: str, dim: int, n_power_iterations: int, eps: float):
        super().__init__(name, dim)
        self.n_power_iterations, self.eps = n_power_iterations, eps

    def compute_weight(self, module: Any) -> Tensor:
        weight, u, v = (getattr(module, self.name + end) for end in ("_orig", "_u", "_v"))
        matrix = as_matrix(weight, self.dim)
        if module.training:
            power_steps(matrix, u, v, self.n_power_iterations, self.eps)
            u, v = u.clone(), v.clone()
        return weight / (u @ (matrix @ v))


def _hooks(module: Module, kind: type[_Hook], name: str) -> list[tuple[int, _Hook]]:
    return [(k, hook) for k, hook in module._forward_pre_hooks.items() if isinstance(hook, kind) and hook.name == name]


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Learn the norm of a weight and its direction apart: parameters ``weight_g`` and ``weight_v``."""
    warnings.warn("`torch.nn.utils.weight_norm` is deprecated in favor of `torch.nn.utils.parametrizations.weight_norm`.",
                  FutureWarning, stacklevel=2)
    if _hooks(module, WeightNorm, name):
        raise RuntimeError(f"Cannot register two weight_norm hooks on the same parameter {name}")
    hook = WeightNorm(name, -1 if dim is None else dim)
    weight = getattr(module, name)
    del module._parameters[name]
    module.register_parameter(name + "_g", Parameter(norm_except(weight.detach(), hook.dim)))
    module.register_parameter(name + "_v", Parameter(weight.detach()))
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def spectral_norm(module: Any, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None) -> Any:
    """Divide a weight, now the parameter ``weight_orig``, by its largest singular value."""
    if _hooks(module, SpectralNorm, name):
        raise RuntimeError(f"Cannot register two spectral_norm hooks on the same parameter {name}")
    if n_power_iterations <= 0:
        raise ValueError(f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}")
    if dim is None:
        dim = 1 if any(c.__name__.startswith("ConvTranspose") for c in type(module).__mro__) else 0
    weight = module._parameters[name]
    if weight is None:
        raise ValueError(f"`SpectralNorm` cannot be applied as parameter `{name}` is None")
    hook = SpectralNorm(name, dim, n_power_iterations, eps)
    matrix = as_matrix(weight.detach(), dim)
    del module._parameters[name]
    module.register_parameter(name + "_orig", weight)
    setattr(module, name, weight.detach())
    for end, size in (("_u", matrix.shape[0]), ("_v", matrix.shape[1])):
        module.register_buffer(name + end, F.normalize(randn(size, dtype=weight.dtype), dim=0, eps=eps))
    module.register_forward_pre_hook(hook)
    return module


def _removed(kind: type[_Hook], ends: tuple[str, ...]) -> Callable[..., Any]:
    word = "weight_norm" if kind is WeightNorm else "spectral_norm"

    def remove(module: Any, name: str = "weight") -> Any:
        for k, hook in _hooks(module, kind, name):
            with no_grad():
                training, module.training = module.training, False
                weight = hook.compute_weight(module).detach()
                module.training = training
            del module._forward_pre_hooks[k]
            for end in (*ends, ""):
                delattr(module, name + end)
            module.register_parameter(name, Parameter(weight))
            return module
        raise ValueError(f"{word} of '{name}' not found in {module}")

    remove.__name__, remove.__doc__ = f"remove_{word}", f"Make the weight of :func:`{word}` an ordinary parameter again."
    return remove


remove_weight_norm = _removed(WeightNorm, ("_g", "_v"))
remove_spectral_norm = _removed(SpectralNorm, ("_orig", "_u", "_v"))
