"""What MkDocs has to know of this project: pages outside docs/, and notebooks.

The benchmarks' results, ARCHITECTURE.md and others stand beside what they describe. They become
pages of the site under the path that they have in the project, and links to them are kept right.
"""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = ("ARCHITECTURE.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)")
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/ and what they link to, and make pages of notebooks."""
    outside = [ROOT / name for name in PAGES]
    outside += sorted((ROOT / "benchmarks").rglob("README.md"))
    for path in list(outside):
        linked = (path.parent / link for link in LINK.findall(path.read_text()))
        outside += [each for each in linked if each.is_file() and each.suffix == ".json"]
    for path in dict.fromkeys(each.resolve() for each in outside):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    for file in [each for each in files if each.src_uri.endswith(".ipynb")]:
        files.remove(file)
        page = file.src_uri.replace(".ipynb", ".md")
        files.append(File.generated(config, page, content=_as_markdown(file.abs_src_path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between files of the project into links between pages of the site."""
    uri = page.file.src_uri
    here = uri if uri in PAGES or uri.startswith("benchmarks/") else f"docs/{uri}"

    def on_site(match: re.Match[str]) -> str:
        target = normpath(str(PurePosixPath(here).parent / match[0])).removeprefix("docs/")
        return relpath(target.replace(".ipynb", ".md"), str(PurePosixPath(uri).parent))

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(on_site, part) for part in parts[::2]]
    return "".join(parts)


def _as_markdown(notebook: str | None) -> str:
    from nbconvert import MarkdownExporter

    body, resources = MarkdownExporter().from_filename(notebook)
    for name, picture in resources["outputs"].items():
        body = body.replace(f"]({name})", f"](data:image/png;base64,{b64encode(picture).decode()})")
    return str(body)
