"""``shard_map`` and what places values on a mesh."""

from __future__ import annotations
