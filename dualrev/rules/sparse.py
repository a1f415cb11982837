"""Sparse arrays of ``jax.experimental.sparse``."""

from __future__ import annotations
