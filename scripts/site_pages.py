"""A hook of mkdocs: pages that lie outside of docs/, and links of all pages as the site needs them.

Pages are written to be read in the repository. On the site a link to a page leads to that page, one to a file to a copy
of it, and one to a folder is plain text.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "examples/plugin/README.md": "plugin.md",
    "models/README.md": "models.md",
    "calibration/README.md": "calibration.md",
}
_LINK = re.compile(r"\[(?P<text>[^\]\n]*)\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere, and the files that any page links to."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    texts = [(ROOT / source, PurePosixPath(source)) for source in PAGES]
    texts += [(path, PurePosixPath("docs", path.name)) for path in (ROOT / "docs").glob("*.md")]
    for path, source in texts:
        for link in _LINK.finditer(path.read_text(encoding="utf-8")):
            target = _target(source, link["path"])
            known = target in PAGES or target.startswith("docs/") or files.get_file_from_path(target)
            if not known and (ROOT / target).is_file():
                files.append(File.generated(config, target, content=(ROOT / target).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    name = page.file.src_uri
    source = PurePosixPath(next((source for source, site in PAGES.items() if site == name), f"docs/{name}"))
    return _LINK.sub(lambda link: _rewritten(link, source), markdown)


def _rewritten(link: re.Match[str], source: PurePosixPath) -> str:
    target, anchor = _target(source, link["path"]), link["anchor"] or ""
    if target in PAGES:
        return f"[{link['text']}]({PAGES[target]}{anchor})"
    if target.startswith("docs/"):
        return f"[{link['text']}]({target.removeprefix('docs/')}{anchor})"
    return f"[{link['text']}]({target})" if (ROOT / target).is_file() else link["text"]


def _target(source: PurePosixPath, path: str) -> str:
    """Return where a link leads, from the root of the repository."""
    return normpath(str(source.parent / path))
