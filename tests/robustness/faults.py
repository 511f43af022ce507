"""Kills commands at random moments, gives them again, and compares what they leave with an undisturbed run.

  python tests/robustness/faults.py                          10 kills per step, 70 in all; an hour on two cores
  python tests/robustness/faults.py --steps preparation training --kills 3
  python tests/robustness/faults.py --seed 7 --out faults.json

The steps are preparation, training, generation, evaluation of an average, an experiment of two runs at once, its
tables, and a report with its analyses, on verses of the Bible, which pip can fetch. In a trial a step is begun, killed
-9 at a moment drawn evenly from the time that it takes undisturbed, begun again, killed again, and at last left alone.
It must then end well and leave the same files with the same content: texts, tables and figures to the byte,
checkpoints to the bit of every parameter, results but for their cost. A fault is any difference, such as a file that
the undisturbed step does not leave, a process that outlives its parent, and one that waits for a child that was killed.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import yaml
from processes import VICTIMS, Killable
from tqdm import tqdm
from traces import compared, contents

from labo_fairseq.files import write_json

_RUN = Path("bible/de-en/labo-seed1-smoke")
_UPDATES = {
    "optimization.max_update": 150,
    "checkpoint.save_interval_updates": 30,
    "checkpoint.keep_interval_updates": 2,
}
_KILLS = 2  # in a trial
_GRID = {
    **{"corpus": "bible", "directions": ["de-en"], "methods": ["ls", "labo"], "seeds": [1]},
    "settings": {key: [value] for key, value in _UPDATES.items()},
}
_GRID_FILE = "faults.yaml"


class Step(NamedTuple):
    """A command of ``labo-fairseq``, in the folder that the steps before it left."""

    command: Tuple[str, ...]
    undone: Tuple[str, ...] = ()  # what is deleted of that folder


_TRAIN = Step(("run", "bible", "de-en", "--smoke", "--folder", ".", *(f"{key}={n}" for key, n in _UPDATES.items())))
_EXPERIMENT = (_GRID_FILE, "--smoke", "--folder", ".")
STEPS = {
    "preparation": Step(("prepare", "bible", "de-en", "--smoke", "--destdir", "bible/data-de-en-smoke")),
    "training": _TRAIN,
    "generation": _TRAIN._replace(undone=(f"{_RUN}/result.json", f"{_RUN}/translations", f"{_RUN}/training.png")),
    "evaluation": Step(("evaluate", str(_RUN), "--average", "2", "--beam", "2")),
    "experiment": Step(("experiment", *_EXPERIMENT, "--jobs", "2")),
    "tables": Step(("experiment", "report", *_EXPERIMENT)),
    "report": Step(("report", str(_RUN))),
}


def start(step: Step, folder: Path, log: Path) -> Killable:
    return Killable([sys.executable, "-m", "labo_fairseq", *step.command], log, folder)


def trial(step: Step, folder: Path, seconds: float, expected: Dict[str, str], random: Random) -> Dict[str, Any]:
    """The kills of one trial in ``folder``, and whatever came of them that should not."""
    log = folder.with_suffix(".log")
    kills: List[Dict[str, Any]] = []
    faults: List[str] = []
    try:
        for _ in range(_KILLS):
            moment, victim = random.uniform(0, seconds), random.choice(VICTIMS)
            command = start(step, folder, log)
            if command.wait(moment):
                break  # there was not so much left to do
            kills.append({"seconds": round(moment, 2), "victim": command.kill(victim, random)})
        command = start(step, folder, log)
        command.process.wait()
        if command.process.returncode:
            faults.append(f"ended with status {command.process.returncode}: {log.read_text(encoding='utf-8')[-2000:]}")
        else:
            faults += compared(contents(folder), expected)
    except RuntimeError as error:
        faults.append(str(error))
    return {"kills": kills, "faults": faults}


def measure(names: Sequence[str], kills: int, seed: int) -> List[Dict[str, Any]]:
    """One row per step: what it took undisturbed, and its trials."""
    rows = []
    with tempfile.TemporaryDirectory() as work, tqdm(total=kills * len(names), unit=" kills") as bar:
        # all happens in one folder: some files hold its path
        folder, before, after = (Path(work) / name for name in ("folder", "before", "after"))
        folder.mkdir()
        (folder / _GRID_FILE).write_text(yaml.safe_dump({"grid": [_GRID]}), encoding="utf-8")
        needed = list(STEPS)[: 1 + max(map(list(STEPS).index, names))]
        for name, step in ((name, STEPS[name]) for name in needed):
            bar.set_description(name)
            for undone in step.undone:
                path = folder / undone
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            _copy(folder, before)
            began = time.monotonic()
            command = start(step, folder, Path(work) / "undisturbed.log")
            if command.process.wait():
                sys.exit((Path(work) / "undisturbed.log").read_text(encoding="utf-8")[-2000:])
            seconds = time.monotonic() - began
            _copy(folder, after)
            trials: List[Dict[str, Any]] = []
            random, expected = Random(f"{seed} {name}"), contents(folder)
            while name in names and sum(len(trial["kills"]) for trial in trials) < kills:
                _copy(before, folder)
                trials.append(trial(step, folder, seconds, expected, random))
                bar.update(len(trials[-1]["kills"]))
                for fault in trials[-1]["faults"]:
                    bar.write(f"{name}: {fault}")
            if name in names:
                rows.append({"step": name, "seconds": seconds, "files": len(expected), "trials": trials})
            _copy(after, folder)
    return rows


def _copy(folder: Path, to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to, symlinks=True)


def table(rows: List[Dict[str, Any]]) -> str:
    lines = [
        f"{'step':<14}{'trials':>8}{'kills':>8}" + "".join(f"{victim:>8}" for victim in VICTIMS) + f"{'faults':>8}"
    ]
    for row in rows:
        hit = [kill["victim"] for trial in row["trials"] for kill in trial["kills"]]
        numbers = [len(row["trials"]), len(hit), *map(hit.count, VICTIMS), sum(len(t["faults"]) for t in row["trials"])]
        lines.append(f"{row['step']:<14}" + "".join(f"{number:>8}" for number in numbers))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=[*STEPS], default=[*STEPS], help="which (default: all)")
    parser.add_argument("--kills", type=int, default=10, help="of each step, at least (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of what is hit (default: 1)")
    parser.add_argument("--out", type=Path, help="JSON with everything measured")
    args = parser.parse_args()
    rows = measure(args.steps, args.kills, args.seed)
    print(table(rows))
    if args.out:
        write_json(args.out, {"seed": args.seed, "rows": rows})
    if any(trial["faults"] for row in rows for trial in row["trials"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
