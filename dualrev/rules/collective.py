"""Collectives: operations along a named axis, over the devices of a mesh or the entries of a ``vmap``."""

from __future__ import annotations
