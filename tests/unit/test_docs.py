"""Documentation is tested like code: what exists is described, and what is described exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from make_reference import pages

from bedrock.api.metrics import ApiMetrics
from bedrock.trace.export import Format
from bedrock.trace.schema import MARKS
from bedrock.tracer.causes import Cause, Feature
from bedrock.tracer.format import LAYOUT, CallFlag, RecordType
from bedrock.tracer.operations import Op

_ROOT = Path(__file__).parent.parent.parent
_REFERENCE = _ROOT / "docs" / "reference"


@pytest.mark.parametrize("path", sorted(pages()), ids=lambda path: path.name)
def test_a_generated_page_is_what_the_code_says(path: Path) -> None:
    """When this fails, run scripts/make_reference.py."""
    assert path.read_text() == pages()[path]


def test_every_route_is_in_the_reference() -> None:
    source = (_ROOT / "bedrock" / "api" / "app.py").read_text()
    routes = re.findall(r'@app\.(get|post|put|delete)\("([^"]+)"\)', source)
    assert len(routes) > 10
    page = (_REFERENCE / "rest.md").read_text()
    for method, path in routes:
        shown = re.sub(r"<(\w+)>", lambda match: ":name" if match[1] == "filename" else ":id", path)
        assert f"`{method.upper()} {shown}`" in page


def test_every_metric_is_in_the_reference() -> None:
    page = (_REFERENCE / "metrics.md").read_text()
    for family in ApiMetrics().registry.collect():
        assert f"`{family.name}" in page


def test_every_record_operation_and_flag_is_in_the_reference() -> None:
    page = (_REFERENCE / "trace-format.md").read_text()
    for kind in RecordType:
        assert f"`{kind.name}`" in page
        for field in LAYOUT[kind]:
            assert f"`{field.name}`" in page
    for item in [*Op, *CallFlag, *Cause, *Feature]:
        assert f"`{(item.name or '').lower()}`" in page


def test_every_mark_and_everything_that_a_kernel_may_not_show_is_explained_once() -> None:
    page = (_REFERENCE / "trace-marks.md").read_text()
    for name in [mark.name for mark in MARKS.values()] + [(feature.name or "").lower() for feature in Feature]:
        explained = [line for line in page.splitlines() if line.startswith((f"| `{name}` |", f"- `{name}`:"))]
        assert len(explained) == (0 if name == "private" else 1), name
    assert "`private`" in page
    for wanted in Format:
        assert re.search(rf"^\| .*`{wanted}`.* \| .*unsupported", page, re.M), wanted


def test_the_commands_of_the_readme_exist() -> None:
    readme = (_ROOT / "README.md").read_text()
    cli = (_REFERENCE / "cli.md").read_text()
    commands = set(re.findall(r"^bedrock ([a-z]+)", readme, re.M))
    assert len(commands) >= 6
    for command in commands:
        assert f"## bedrock {command}" in cli
    for script in re.findall(r"scripts/[a-z_]+", readme):
        assert (_ROOT / script).exists(), script
