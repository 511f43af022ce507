"""What the site takes from outside ``docs/``: figures and tables of ``results/``, and the changelog.

Pages link to them as a reader of the repository does (``../results/...``).
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

_RESULT_FILES = {".png", ".svg", ".json", ".csv"}


def on_files(files, config):
    root = Path(config.config_file_path).parent
    for path in sorted((root / "results").rglob("*")):
        if path.suffix in _RESULT_FILES:
            files.append(File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path)))
    files.append(File.generated(config, "changelog.md", abs_src_path=str(root / "CHANGELOG.md")))
    return files


def on_page_markdown(markdown, page, config, files):
    return re.sub(r"\]\(((?:\.\./)*)\.\./results/", r"](\1results/", markdown)


def on_page_content(html, page, config, files):
    """Docstrings name other objects in Sphinx's roles, which Markdown does not know."""
    return re.sub(r":(?:attr|class|data|func|meth|mod):\s*<code>~?", "<code>", html)
