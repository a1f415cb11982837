"""Special functions of mathematics: the gamma, beta, zeta, error and Bessel families."""

from __future__ import annotations
