import re
from pathlib import Path

from pointloom.data.clouds import CLOUD_SUFFIXES
from pointloom.data.folder import UP_AXES
from pointloom.data.quarantine import REASONS
from pointloom.data.records import ObjectRecord

PAGE = (Path(__file__).parents[2] / "docs/formats.md").read_text(encoding="utf-8")


def test_the_manual_lists_every_reason_with_its_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.split("## Quarantine")[1], flags=re.MULTILINE)
    assert {reason: meaning.replace("`", "") for reason, meaning in rows} == REASONS


def test_the_manual_names_every_format_and_column() -> None:
    assert all(f"`{suffix}`" in PAGE for suffix in (*UP_AXES, *CLOUD_SUFFIXES))
    assert all(f"`{name}`" in PAGE for name in ObjectRecord.__dataclass_fields__)
