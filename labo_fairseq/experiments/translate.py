"""Translate lines from standard input with the model of a finished run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import List

from ..data.prepare import Prepared
from ..errors import UserError
from .run import decoding_options


def newest_run(folder: Path) -> Path:
    """The run below ``folder`` (or ``folder`` itself) that was completed last.

    Raises:
        UserError: there is none.
    """
    results = sorted(folder.rglob("result.json"), key=lambda path: path.stat().st_mtime)
    if not results:
        raise UserError(f"no finished run in {folder}: train one with 'bash scripts/run_demo.sh', or name its folder")
    return results[-1].parent


def translate(run_folder: Path) -> None:
    """Standard input to standard output, a line for a line; as one types, or in batches from a pipe.

    Raises:
        UserError: fairseq fails.
    """
    result = json.loads((run_folder / "result.json").read_text(encoding="utf-8"))
    data, recipe = Prepared(run_folder / result["data"]), result["settings"]["data"]
    options = decoding_options(
        data, run_folder / result["checkpoint"], recipe["source"], recipe["target"], result["settings"]["beam"]
    )
    batch = "1" if sys.stdin.isatty() else "64"
    print(
        f"{recipe['source']} → {recipe['target']}, {run_folder}; one sentence a line, end with Ctrl-D", file=sys.stderr
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "fairseq_cli.interactive", *options),
            *("--buffer-size", batch, "--batch-size", batch),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    tail: List[str] = []
    empty = False
    with process:
        for line in process.stdout:
            if line.startswith("S-"):
                empty = not line.partition("\t")[2].strip()
            elif line.startswith("D-"):
                # the model would make up a sentence for an empty line
                print("" if empty else line.rstrip("\n").split("\t", 2)[2], flush=True)
            else:
                tail = [*tail, line.rstrip()][-5:]
    if process.returncode != 0:
        raise UserError("fairseq-interactive failed. Its last lines:\n" + "\n".join(tail))
