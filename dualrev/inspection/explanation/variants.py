"""The rows of a report: variants of a derivative, and lines of the user's program."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to a derivative, and what one compiled call of it is predicted to take.

    Attributes:
      name: what it does; ``code``, the line that makes it.
      passes: how often tangents are pushed or cotangents pulled; ``how`` says it in words.
      flops, bytes_moved, kernels: arithmetic operations, bytes that kernels read and write, and kernels and calls of libraries.
      residual_bytes: what is kept for pulls.
      peak_bytes: the most that is held at once: arguments, results and temporaries.
      seconds: the predicted time.
      measured_seconds, measured_peak_bytes: the median time, and the bytes that the compiler reserves; None where not measured.
      measured_ratio: the median of its time over that of the recommendation, round by round.
    """

    name: str
    code: str
    passes: int
    how: str
    flops: float
    bytes_moved: float
    kernels: float
    residual_bytes: int
    peak_bytes: int
    seconds: float
    measured_seconds: float | None = None
    measured_peak_bytes: int | None = None
    measured_ratio: float | None = None


@dataclass(frozen=True)
class Line:
    """A line of the user's program in one variant.

    Attributes:
      place: ``file:line``, empty for what belongs to no line of the user's; ``source``, its text.
      share: its part of the time, and ``seconds`` the time itself.
      bytes_moved: what its kernels read and write.
      residual_bytes: what reverse mode keeps for it.
      operation: its operation that takes longest.
    """

    place: str
    source: str
    share: float
    seconds: float
    bytes_moved: int
    residual_bytes: int
    operation: str


@dataclass(frozen=True)
class Argument:
    """An array among the arguments: what the user calls it, its type, and whether it is differentiated."""

    name: str
    type: str
    is_differentiated: bool
