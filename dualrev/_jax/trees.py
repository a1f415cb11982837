"""Pytrees: what users' functions take and return."""

from __future__ import annotations

from typing import Any, TypeAlias

from jax.tree_util import PyTreeDef as PyTreeDef  # the structure of a pytree

#: A pytree of a user's: an array, or any nesting of containers that jax knows, with leaves that may be anything.
PyTree: TypeAlias = Any
