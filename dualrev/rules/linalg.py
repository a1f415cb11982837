"""Matrix factorizations."""

from __future__ import annotations
