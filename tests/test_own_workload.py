"""The files of docs/own_workload.md are those of its example, whose run and check are tested."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "spirals"
PAGE = (ROOT / "docs" / "own_workload.md").read_text(encoding="utf-8")


def test_the_page_shows_the_example_whole():
    blocks = re.findall(r"```python\n# spirals/(\w+\.py)\n(.*?)```", PAGE, re.DOTALL)
    files = {path.name: path.read_text(encoding="utf-8") for path in EXAMPLE.glob("*.py")}
    assert len(blocks) == 4
    assert dict(blocks) == files


def test_the_example_is_less_than_120_lines():
    lines = [line for path in EXAMPLE.glob("*.py") for line in path.read_text().splitlines()]
    assert len(lines) < 120
