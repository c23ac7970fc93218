"""What a process loads before it has anything to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = ("numpy", "pandas", "plotly", "pyarrow", "jinja2", "quart", "sqlalchemy")


@pytest.mark.parametrize("module", ["bedrock.dockerd.service", "bedrock.filemd.watch", "bedrock.cli.services"])
def test_a_node_loads_nothing_that_only_the_api_needs(module: str) -> None:
    script = f"import sys, {module}; print(*sorted(set(sys.modules) & set({_HEAVY})))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
