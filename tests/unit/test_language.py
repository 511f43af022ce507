"""The project's words: none of the phrases that the glossary replaces is left in the tree."""

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]

#: what not to write → what to write
GLOSSARY = {
    r"tak(es?|en|ing) up again|taken up\b": "resume",
    r"\bmend(s|ed|ing)?\b": "patch, correct",
    r"\bpupils?\b": "student",
    r"\bsurer\b": "more confident",
    r"as far as it has come": "partial: N of M runs",
    r"last words|LastWords": "final error message",
    r"of no use\b": "smoke test: tiny model, meaningless scores",
    r"from chance\b|beyond chance": "significant",
    r"go(es)? on from|the same command goes on": "resume",
    r"for ever\b": "hang",
    r"go(es)? unnoticed": "is not detected",
    r"want of memory": "out of memory",
    r"prepared otherwise|put back what": "data from another corpus or other settings",
    r"no program can": "suggested remedy",
    r"\bno (whole|finite) number|is no number": "must be an integer ≥ N, got N",
    r"is no setting|write it as in": "invalid override: expected KEY=VALUE",
    r"it said nothing": "(no output)",
    r"whole or not there|runs? whole\b|file whole\b": "complete, atomic write",
    r"(chosen|right) tokens?\b|right (word|translation)\b": "hypothesis token, reference token",
    r"\bpictures?\b": "figure",
    r"\b(one|an?) (bar|line|panel|point|row|run|sentence|test|value) an? (cell|core|GPU|line|method|run|seed|token)\b"
    r"|\b(one|tokens) a (core|GPU|line|second|sentence|token)\b": "per",
    r"(?i)\b(binar|detoken|initial|maxim|memor|minim|optim|organ|penal|real|recogn|regular|serial|summar|synchron|token"
    r"|vector)is(e|ed|er|es|ing|ation)\b": "American spelling: -ize",
    r"(?i)\b(behaviour|colour|favour|neighbour)": "American spelling: -or",
}
#: what must keep its name: the score in the results of finished runs
KEPT = re.compile(r"BLEU \(tokenised|tokenised, multi-bleu")


def texts():
    """Every tracked text file but results and this one, with its text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if name and path.is_file() and path != Path(__file__).resolve() and not name.startswith("results/"):
            try:
                yield name, KEPT.sub("", path.read_text(encoding="utf-8"))
            except UnicodeDecodeError:  # a figure
                continue


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout")
@pytest.mark.parametrize("pattern", GLOSSARY)
def test_the_glossary_is_kept(pattern):
    left = [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert left == [], f"write: {GLOSSARY[pattern]}"
