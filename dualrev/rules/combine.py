"""Reductions, whole or over windows, by an operation that the user gives."""

from __future__ import annotations
