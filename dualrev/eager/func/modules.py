"""Modules with other parameters than their own: ``functional_call`` and stacked states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.ops.joining import stack

#: Tensors by name.
Values: TypeAlias = Mapping[str, Tensor]


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters, and the buffers, of models of one class, stacked by name: for ``vmap`` over ``functional_call``.

    >>> from dualrev import eager as torch
    >>> models = [torch.nn.Linear(2, 3) for _ in range(4)]
    >>> params, buffers = torch.func.stack_module_state(models)
    >>> torch.vmap(lambda p, x: torch.func.functional_call(models[0], p, (x,)), (0, None))(params, torch.ones(5, 2)).shape
    torch.Size([4, 5, 3])
    """
    if not len(models):
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({m.training for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")
    if any(type(m) is not type(models[0]) for m in models):
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")

    def stacked(name: str, tensors: Sequence[Tensor]) -> Tensor:
        if len({t.requires_grad for t in tensors}) > 1:
            raise RuntimeError(f"Expected {name} from each model to have the same .requires_grad")
        return stack([t.detach() for t in tensors]).requires_grad_(tensors[0].requires_grad)

    params, buffers = [dict(m.named_parameters()) for m in models], [dict(m.named_buffers()) for m in models]
    return ({k: stacked(k, [p[k] for p in params]) for k in params[0]}, {k: stacked(k, [b[k] for b in buffers]) for k in buffers[0]})


def functional_call(module: Module, parameter_and_buffer_dicts: Values | Sequence[Values], args: object = (),
                    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False) -> Any:
    """Call a module with other parameters and buffers, by name, in place of its own.

    With ``tie_weights`` a tensor that the module holds under several names is replaced under all of them.

    Raises:
      ValueError: it has no parameter or buffer of a name; or tied ones are given several values.
      RuntimeError: ``strict``, and not all of its own are given.
    """
    given = parameter_and_buffer_dicts
    values: dict[str, Tensor] = dict(given) if isinstance(given, Mapping) else {k: v for part in given for k, v in part.items()}
    places: dict[str, tuple[dict[str, Any], str]] = {
        f"{prefix}.{name}" if prefix else name: (place, name) for prefix, m in module.named_modules()
              for place in (m._parameters, m._buffers) for name in place}
    unknown = [name for name in values if name not in places]
    if unknown:
        raise ValueError(f"functional_call: the module has no parameter or buffer {', '.join(map(repr, unknown))}\n"
                         f"it has {', '.join(places)}")
    ids = {key: id(place[name]) for key, (place, name) in places.items() if place[name] is not None}
    tied: dict[int, list[str]] = {}
    for key in ids:
        tied.setdefault(ids[key], []).append(key)
    if tie_weights:
        for same in tied.values():
            several = [key for key in same if key in values]
            if any(values[key] is not values[several[0]] for key in several):
                raise ValueError(f"functional_call got multiple values for keys {several}, which are tied. Consider using "
                                 "tie_weights=False")
            if several:
                values.update(dict.fromkeys(same, values[several[0]]))
    missing = sorted([key for key in ids if key not in values])
    if strict and missing:
        raise RuntimeError(f"Error(s) in reparametrizing for {type(module).__name__}:\n\tMissing key(s): "
                           f"{', '.join(map(repr, missing))}.\ngive all parameters and buffers, or leave out strict=True")
    before = [(place, name, place[name]) for place, name in (places[key] for key in values)]
    try:
        for key, value in values.items():
            place, name = places[key]
            place[name] = value
        return module(*(args if isinstance(args, tuple) else (args,)), **(kwargs or {}))
    finally:
        for place, name, value in before:
            place[name] = value


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Make the batch norms of a model use the statistics of each batch, in place: ``vmap`` then maps them."""
    for module in root.modules():
        if hasattr(module, "num_batches_tracked") and hasattr(module, "running_mean"):
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False  # type: ignore[assignment]  # as PyTorch's attribute
    return root
