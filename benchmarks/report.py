"""Seconds for the table of a grid of runs: ``labo-fairseq experiment report`` on copies of one finished run.

  python benchmarks/report.py runs/multi30k8k/de-en/labo-seed1
  python benchmarks/report.py RUN --seeds 3 --out results/preparation/report.json

The run is copied, without its checkpoints, once for each of seven methods and --seeds seeds, 84 runs by default; every
copy is given the configuration of its method and its seed, so that the report takes it for what it stands for.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from labo_fairseq.evaluation.runs import load_run
from labo_fairseq.experiments.grid import load_grid
from labo_fairseq.files import write_json

METHODS = ["ls", "labo", "ce", "cp", "fl", "afl", "ls-rdrop"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run, below CORPUS/DIRECTION")
    parser.add_argument("--seeds", type=int, default=12, metavar="N", help="per method (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON")
    options = parser.parse_args()
    run = load_run(options.run)
    corpus, direction = options.run.resolve().parts[-3:-1]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        block = {"corpus": corpus, "directions": [direction], "methods": METHODS, "seeds": list(range(options.seeds))}
        (root / "grid.yaml").write_text(yaml.safe_dump({"title": "Copies", "grid": [block]}), encoding="utf-8")
        grid = load_grid(str(root / "grid.yaml"))
        result = json.loads(run.result.read_text(encoding="utf-8"))
        result["data"] = str(run.data.folder.resolve())
        for job in grid.jobs:
            copy = job.folder(root)
            shutil.copytree(run.folder, copy, ignore=shutil.ignore_patterns("checkpoints*", "*.png"))
            result["settings"]["config"] = job.subject.config(job.method, job.seed, job.settings, job.smoke)
            write_json(copy / "result.json", result)
        command = ["experiment", "report", str(root / "grid.yaml"), "--folder", str(root), "--out", str(root / "out")]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "labo_fairseq", *command], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        rows = json.loads((root / "out" / "scores.json").read_text(encoding="utf-8"))
    assert all(len(row["scores"]) == options.seeds for row in rows), "a run was not taken"
    print(f"{len(grid.jobs)} runs, {len(rows)} cells: {seconds:.1f} s")
    if options.out:
        write_json(options.out, {"runs": len(grid.jobs), "cells": len(rows), "seconds": seconds})


if __name__ == "__main__":
    main()
