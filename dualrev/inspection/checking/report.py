"""What a check found: findings in words, and the report that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dualrev.errors import DerivativeError

#: What a finding is about.
Kind: TypeAlias = Literal["derivative", "modes", "custom rule", "foreign rule", "stopped", "non-smooth", "precision", "blocked",
                          "integer input", "not finite", "not deterministic", "no derivative", "undecided"]

#: ``wrong``: the derivative is wrong, or there is none; ``warning``: it is right, and probably not what was wanted; ``note``: something
#: to know, such as a rule that differs from its function on purpose.
Severity: TypeAlias = Literal["wrong", "warning", "note"]

_ORDER: dict[Severity, int] = {"wrong": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
      kind: what it is about.
      severity: ``"wrong"``, ``"warning"`` or ``"note"``.
      text: the finding in words.
      advice: what to do about it.
      input: the input that is concerned, such as ``params['w']``; several are joined by commas.
      mode: ``"forward"`` or ``"reverse"``; of order 2, ``"reverse over forward"`` and its like.
      order: the order of the derivative, 1 or 2.
      operation: the primitive, or the function that has a rule.
      line: ``file:line (function)`` of the user's code.
      difference: the largest difference between what was expected and what came, or a distance, in the unit that the text says.
    """

    kind: Kind
    severity: Severity
    text: str
    advice: str = ""
    input: str | None = None
    mode: str | None = None
    order: int | None = None
    operation: str | None = None
    line: str | None = None
    difference: float | None = None

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}" + (f"\n    {self.advice}" if self.advice else "")


class CheckReport:
    """What :func:`check` found about a function at a point.

    ``bool(report)`` is ``report.ok``: whether no finding is ``"wrong"``.

    Attributes:
      name: the function's.
      findings: the wrong ones first, then warnings, then notes.
      done: what was compared, in words.
      left_out: what was not looked at, because a limit was reached, and how to check it.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> report = dr.check(jnp.floor)(0.4)
    >>> report.ok, [(f.kind, f.operation, f.input) for f in report.findings]
    (True, [('blocked', 'floor', 'x')])
    """

    def __init__(self, name: str, findings: Sequence[Finding], done: Sequence[str], left_out: Sequence[str] = ()):
        self.name = name
        self.findings = tuple(sorted(findings, key=lambda f: _ORDER[f.severity]))
        self.done = tuple(done)
        self.left_out = tuple(left_out)

    @property
    def ok(self) -> bool:
        return not any(f.severity == "wrong" for f in self.findings)

    def __bool__(self) -> bool:
        return self.ok

    def of_kind(self, kind: Kind) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(f for f in self.findings if f.kind == kind)

    def raise_if_wrong(self) -> None:
        """Raise what was found, unless the report is :attr:`ok`.

        Raises:
          DerivativeError: its message is the report.

        >>> import jax.numpy as jnp, dualrev as dr
        >>> dr.check(jnp.sin)(0.5).raise_if_wrong()
        """
        if not self.ok:
            raise DerivativeError(str(self))

    def __str__(self) -> str:
        counts = [f"{n} {word}{'s' if n > 1 and word != 'wrong' else ''}" for word in _ORDER
                  if (n := sum(f.severity == word for f in self.findings))]
        head = f"check of {self.name}: {'ok' if self.ok else 'WRONG'}" + (f" ({', '.join(counts)})" if counts else "")
        return "\n".join([head, *[f"  {line}" for f in self.findings for line in str(f).splitlines()],
                          *[f"  done: {line}" for line in self.done], *[f"  not checked: {line}" for line in self.left_out]])

    def __repr__(self) -> str:
        return f"<{str(self).splitlines()[0]}>"
