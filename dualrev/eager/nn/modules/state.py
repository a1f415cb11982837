"""The state of a module: ``state_dict``, ``load_state_dict``, and the methods that a subclass overrides to change them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dualrev.eager.core.hooks import RemovableHandle
from dualrev.eager.core.modes import no_grad
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.members import Members
from dualrev.eager.nn.parameter import Parameter
from dualrev.eager.ops.creation import tensor

_EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """The names that ``load_state_dict`` did not find, and those that the module does not have."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class Stateful(Members):
    """Members whose values are saved and loaded by name."""

    #: The version of what ``_save_to_state_dict`` writes; a subclass that changes its names counts up.
    _version: int = 1

    def __init__(self) -> None:
        super().__init__()
        for name in ("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"):
            object.__setattr__(self, name, {})

    def get_extra_state(self) -> Any:
        """What a subclass saves beside its tensors."""
        raise RuntimeError("Reached a code path in Module.get_extra_state() that should never be called.")

    def set_extra_state(self, state: Any) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        raise RuntimeError("Reached a code path in Module.set_extra_state() that should never be called.")

    # ----------------------------------------------------------------------------------------------------------- saving

    def _state(self) -> dict[str, Any]:
        """The parameters and the buffers that belong to the state, by their own names."""
        kept = {name: x for name, x in self._buffers.items() if name not in self._non_persistent_buffers_set}
        return {name: x for name, x in {**self._parameters, **kept}.items() if x is not None}

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Write this module's own state, without that of the modules inside."""
        for name, x in self._state().items():
            destination[prefix + name] = x if keep_vars else x.detach()
        if type(self).get_extra_state is not Stateful.get_extra_state:
            destination[prefix + _EXTRA] = self.get_extra_state()

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> OrderedDict[str, Any]:
        """Parameters and buffers by name, sharing storage; with ``keep_vars``, the parameters themselves."""
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local
        for hook in list(self._state_dict_pre_hooks.values()):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in list(self._state_dict_hooks.values()):
            given = hook(self, destination, prefix, local)
            if given is not None:
                destination = given
        return destination

    # ---------------------------------------------------------------------------------------------------------- loading

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
                              missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str]) -> None:
        """Read this module's own state, and note what is wrong with it."""
        for hook in list(self._load_state_dict_pre_hooks.values()):
            hook(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        own = self._state()
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name, x in own.items():
            key = prefix + name
            if key in state_dict:
                self._load(name, x, key, state_dict[key], assign, error_msgs)
            elif strict:
                missing_keys.append(key)
        extra = prefix + _EXTRA
        if type(self).set_extra_state is not Stateful.set_extra_state:
            if extra in state_dict:
                self.set_extra_state(state_dict[extra])
            elif strict:
                missing_keys.append(extra)
        elif strict and extra in state_dict:
            unexpected_keys.append(extra)
        for key in state_dict if strict else ():
            if key.startswith(prefix) and key != extra:
                name, dot, _ = key[len(prefix):].partition(".")
                if (name not in self._modules) if dot else (name not in own):
                    unexpected_keys.append(key)

    def _load(self, name: str, x: Tensor, key: str, given: Any, assign: bool, error_msgs: list[str]) -> None:
        """Copy one value, or put it in the place of the member."""
        if not isinstance(given, Tensor):
            if not hasattr(given, "__array__"):
                error_msgs.append(f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object from '
                                  f"checkpoint but received {type(given)}")
                return
            given = tensor(given)
        if x.ndim == 0 and given.ndim == 1:  # written by PyTorch before tensors without dimensions
            given = given[0]
        if given.shape != x.shape:
            error_msgs.append(f"size mismatch for {key}: copying a param with shape {given.shape} from checkpoint, the shape in "
                              f"current model is {x.shape}.")
        elif assign:
            is_parameter = isinstance(x, Parameter) and not isinstance(given, Parameter)
            setattr(self, name, Parameter(given, x.requires_grad) if is_parameter else given)
        else:
            with no_grad():
                x.copy_(given)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> IncompatibleKeys:
        """Copy values by name; with ``assign``, the given tensors take the place of the module's own.

        Raises:
          RuntimeError: names are missing or unexpected (unless ``strict=False``), or a shape differs.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        metadata = getattr(state_dict, "_metadata", None)
        state: Any = OrderedDict(state_dict)  # hooks may change it
        if metadata is not None:
            state._metadata = metadata

        def load(module: Any, prefix: str) -> None:
            local = {} if metadata is None else metadata.get(prefix[:-1], {})
            if assign:
                local["assign_to_params_buffers"] = assign
            module._load_from_state_dict(state, prefix, local, True, missing, unexpected, errors)
            for name, inner in module._modules.items():
                if inner is not None:
                    load(inner, f"{prefix}{name}.")
            found = IncompatibleKeys(missing, unexpected)
            for hook in list(module._load_state_dict_post_hooks.values()):
                if hook(module, found) is not None:
                    raise RuntimeError("Hooks registered with ``register_load_state_dict_post_hook`` are not expected to return new "
                                       "values, if incompatible_keys need to be modified, it should be done inplace.")

        load(self, "")
        if strict:
            if unexpected:
                errors.insert(0, "Unexpected key(s) in state_dict: " + ", ".join(f'"{k}"' for k in unexpected) + ". ")
            if missing:
                errors.insert(0, "Missing key(s) in state_dict: " + ", ".join(f'"{k}"' for k in missing) + ". ")
        if errors:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(errors))
        return IncompatibleKeys(missing, unexpected)

    # ------------------------------------------------------------------------------------------------------------ hooks

    def register_state_dict_pre_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before the state is written."""
        return RemovableHandle(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after the state was written."""
        return RemovableHandle(self._state_dict_hooks, hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, ...)`` before the state is read."""
        def bound(*args: Any) -> None:
            hook(self, *args)

        return RemovableHandle(self._load_state_dict_pre_hooks, bound)

    def _register_load_state_dict_pre_hook(self, hook: Callable[..., None], with_module: bool = False) -> RemovableHandle:
        """As :meth:`register_load_state_dict_pre_hook`, of which older programs use this name: the hook does not get the module."""
        return self.register_load_state_dict_pre_hook(hook) if with_module else RemovableHandle(self._load_state_dict_pre_hooks, hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` after the state was read; it may change the lists."""
        return RemovableHandle(self._load_state_dict_post_hooks, hook)
