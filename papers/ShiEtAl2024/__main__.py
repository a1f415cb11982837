"""``python -m papers.ShiEtAl2024``."""

from __future__ import annotations

import sys

from papers.reproduction import main
from papers.ShiEtAl2024.run import PAPER, run

if __name__ == "__main__":
    sys.exit(main(PAPER, run))
