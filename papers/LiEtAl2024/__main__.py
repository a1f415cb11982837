"""``python -m papers.LiEtAl2024``."""

from __future__ import annotations

import sys

from papers.LiEtAl2024.run import PAPER, run
from papers.reproduction import main

if __name__ == "__main__":
    sys.exit(main(PAPER, run))
