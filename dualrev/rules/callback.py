"""Calls out of the program: what only looks at values passes through, what computes has no derivative to be found."""

from __future__ import annotations
