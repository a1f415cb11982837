"""Operations that hold one program and run it once: named, composite, staged and wrapped calls."""

from __future__ import annotations
