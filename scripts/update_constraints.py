"""Pins every dependency to the newest version that goes together: writes constraints/python-X.Y.txt.

    python3 scripts/update_constraints.py            for 3.8, 3.9, 3.10 and 3.11, as far as these Pythons are here
    python3 scripts/update_constraints.py 3.11       for one of them

pip resolves the package with its extras (but for comet, which holds NumPy back, and MeCab) and what builds it, within
the limits of constraints/fairseq-*.in, and installs nothing; it takes a few minutes per version. Then run the tests,
and commit the files together.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints"
VERSIONS = ("3.8", "3.9", "3.10", "3.11")
# extras that no script installs: the requirements of comet would hold back all others, MeCab is for two languages
UNPINNED = ("comet", "ja", "ko")
# beside the package: what installs it, and what its dependencies are compiled with
BUILD = ("pip", "setuptools", "wheel", "cython")
_PIP = "pip==24.0"  # tells what it resolved, and reads the metadata of fairseq 0.12.2


def limits(version: str) -> Path:
    """The hand-written constraints of the fairseq that goes with a version of Python."""
    return CONSTRAINTS / ("fairseq-fixed.in" if version == "3.11" else "fairseq-0.12.in")


def find_python(version: str) -> Optional[str]:
    """A Python of that version, on the PATH or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]
    for candidate in filter(None, candidates):
        code = f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
        if subprocess.run([str(candidate), "-c", code], stderr=subprocess.DEVNULL).returncode == 0:
            return str(candidate)
    return None


def resolve(pip: List[str], requirements: List[str], constraint: Path, *options: str) -> List[Dict[str, Any]]:
    """Metadata of everything that pip would install into an empty environment.

    Args:
        constraint: also holds where pip builds a package, unlike ``--constraint``.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [*pip, "install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report), *options]
        env = {**os.environ, "PIP_CONSTRAINT": constraint.as_uri()}
        subprocess.run([*command, *requirements], check=True, cwd=str(ROOT), env=env)
        return [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]


def pins(version: str, python: str) -> List[str]:
    """``NAME==VERSION`` of all that the package may need on that version of Python."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [str(Path(folder) / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", _PIP], check=True)
        (own,) = resolve(pip, ["."], limits(version), "--no-deps")
        extras = ",".join(sorted({*own.get("provides_extra", ())} - {*UNPINNED}))
        packages = resolve(pip, [f".[{extras}]", *BUILD], limits(version))
    names = {re.sub(r"[-_.]+", "-", package["name"]).lower(): package["version"] for package in packages}
    del names["labo-fairseq"]
    # a local version, such as +cpu, is that of the build at hand and no part of the release's name
    return [f"{name}=={names[name].split('+')[0]}" for name in sorted(names)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="X.Y", help=f"of Python (default: {' '.join(VERSIONS)})")
    chosen = parser.parse_args().versions
    unknown = [version for version in chosen if version not in VERSIONS]
    if unknown:
        parser.error(f"no constraints for Python {unknown[0]}: it must be one of {', '.join(VERSIONS)}")
    failed = False
    for version in chosen or VERSIONS:
        python = find_python(version)
        if python is None:
            print(f"Python {version} is not here: its constraints stay as they are", file=sys.stderr)
            failed = failed or version in chosen
            continue
        print(f"Resolving for Python {version}", file=sys.stderr)
        lines = [f"# Python {version}: written by scripts/update_constraints.py from {limits(version).name}"]
        path = CONSTRAINTS / f"python-{version}.txt"
        try:
            lines += pins(version, python)
        except subprocess.CalledProcessError:
            print(f"pip cannot resolve the package for Python {version}: {path.name} stays as it is", file=sys.stderr)
            failed = True
            continue
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(lines) - 1} packages")
    sys.exit(failed)


if __name__ == "__main__":
    main()
