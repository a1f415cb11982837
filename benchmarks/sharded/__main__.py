"""Collectives, bytes and memory of gradients on 8 virtual devices, dualrev and jax: ``python -m benchmarks.sharded``.

Bytes are what one device sends in one step, in a ring; memory is the temporary memory of one device by the compiler.  All of them are
properties of the compiled programs: no time is measured.
"""

from __future__ import annotations

import argparse
import os
import sys

DEVICES = 8


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharded", description=__doc__)
    parser.add_argument("words", nargs="*", help="parts of the names of programs; all by default")
    words = parser.parse_args().words
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    os.environ.update(XLA_FLAGS=flags.strip(), JAX_PLATFORMS="cpu")

    from benchmarks.sharded.table import rows  # starts the devices

    worse = 0
    print("| program | collectives, ours | jax | bytes sent, ours | jax | temporary bytes, ours | jax |\n|---|---|---|---|---|---|---|")
    for row in rows(words):
        print(row.line(), flush=True)
        worse += row.is_worse
    return min(worse, 1)


if __name__ == "__main__":
    sys.exit(main())
