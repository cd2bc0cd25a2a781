"""The programs of `docs/plain_loops.md` run, one after the other, as they are typed."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "plain_loops.md"


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
def test_the_programs_of_the_page_run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    blocks = [block for block in blocks if not block.startswith("# not run by the tests")]
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    assert "grad_norm/total" in printed
    assert printed.splitlines()[-1].startswith("100 5 ")
