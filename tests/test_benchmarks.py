import re
from pathlib import Path

from benchmarks.defaults import VARIANTS

_REPOSITORY = Path(__file__).parents[1]


def test_the_defaults_have_one_row_for_each_variant_that_was_measured() -> None:
    text = (_REPOSITORY / "docs" / "defaults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \|", text, flags=re.MULTILINE)
    assert rows == ["variant", *VARIANTS]
