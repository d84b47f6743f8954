"""Parity runs where its extra is installed: `pip install "linocut[parity]"`; elsewhere it is skipped as a whole."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = ("einops", "linformer", "local_attention", "mambapy", "nystrom_attention", "performer_pytorch", "transformers")
collect_ignore_glob = [] if all(find_spec(name) for name in NEEDED) else ["test_*.py"]

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)
