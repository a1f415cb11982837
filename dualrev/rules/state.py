"""Mutable references, in their pure uses."""

from __future__ import annotations
