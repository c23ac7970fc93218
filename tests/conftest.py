"""What every test may use."""

from __future__ import annotations

import sys
from pathlib import Path

# The tests use the same image maker as the demo.
sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
sys.path.insert(0, str(Path(__file__).parent))
