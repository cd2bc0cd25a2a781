"""Rewrite the table of docs/prescribe.md from the table of cures.

python docs/cure_table.py            rewrites what stands between the page's markers
python docs/cure_table.py --check    changes nothing; code 1 if the page is not up to date
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from lightning_stab.diagnosis.cures import CURES

PAGE = Path(__file__).with_name("prescribe.md")
START, END = "<!-- cures -->\n", "\n<!-- end of cures -->"


def table() -> str:
    """Return a row for each cure."""
    lines = ["| cure | for | how it is applied | source |", "|---|---|---|---|"]
    for cure in sorted(CURES, key=lambda row: not row.is_automatic):  # by hand at the end
        names = (*cure.answers, *cure.tried_for, *cure.late_for)
        ids = dict.fromkeys(name.partition(":")[0] for name in names)
        made = [f"`{path.rpartition('.')[2]}`" for path, _ in cure.callbacks]
        arguments = [*cure.trainer, *(f"DataLoader({name}=...)" for name in cure.loader)]
        how = " and ".join(made) or ", ".join(f"`{name}`" for name in arguments) or "by hand"
        source = re.sub(r"docs/([\w.]+)", r"[\1](\1)", cure.source)
        source = "" if "(prescribe.md)" in source else source
        lines.append(f"| `{cure.id}` | {', '.join(ids)} | {how} | {source} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Rewrite the page, or say whether it is up to date."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    new = before + START + table() + END + rest.partition(END)[2]
    if "--check" in (sys.argv[1:] if argv is None else argv):
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
