"""Linear systems: triangular, tridiagonal, and those that the user solves."""

from __future__ import annotations
