"""A long training, once undisturbed and once killed and resumed after every checkpoint: is it the same one?

  python tests/robustness/endurance.py                    20,000 updates, killed 19 times: half an hour on two cores
  python tests/robustness/endurance.py --updates 3000 --every 500
  python tests/robustness/endurance.py --seed 7 --out endurance.json

The model is tiny, the text 2,000 verses of the Bible, which pip can fetch. Every so many updates fairseq validates and
writes a checkpoint; within a second or two after that, the second training is killed -9 with all its processes, and the
same command is given again.

curve     the logged values of training and validation, but for times, that are not equal in both
files     of the same name in both folders whose content is another, and files that one of them alone holds; of
          checkpoints every parameter counts to the bit
memory    resident set of the process that trains, over the undisturbed training: the median of its last fifth / that of
          its second fifth; and the largest / the smallest of the other one's peaks, one for each time it was resumed
handles   files that this process has open, at most: in the second fifth, in the last fifth
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Dict, List, NamedTuple, Optional

from processes import ALL, Killable
from tqdm import tqdm
from traces import compared, contents

from labo_fairseq.files import write_json
from labo_fairseq.reporting.training_log import parse_record, read_curves

_RUN = Path("bible/de-en/labo-seed1-smoke")
_TIMES = ("wps", "ups", "wall", "train_wall", "gb_free")
_GROWTH = 1.05  # of the memory, at most
_POLL = 0.2  # seconds


class Sample(NamedTuple):
    """Of the process that trains, at a moment."""

    update: int
    memory: float  # MiB, resident
    handles: int  # open files


def command(updates: int, every: int) -> List[str]:
    settings = {
        **{"optimization.max_update": updates, "dataset.max_tokens": 400, "common.log_interval": 1},
        **{"checkpoint.save_interval_updates": every, "dataset.validate_interval_updates": every},
        **{"checkpoint.keep_interval_updates": 3, "criterion.smoothing_warmup_steps": updates // 4},
        **{f"model.{side}.{size}": 32 for side in ("encoder", "decoder") for size in ("embed_dim", "ffn_embed_dim")},
    }
    run = [sys.executable, "-m", "labo_fairseq", "run", "bible", "de-en", "--smoke", "--folder", "."]
    return [*run, *(f"{key}={value}" for key, value in settings.items())]


class Log:
    """The newest records of fairseq's log, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path, self.read = path, 0
        self.update = self.validated = 0

    def follow(self) -> bool:
        """Read what was written since the last time; whether there is a record in it."""
        if not self.path.exists():
            return False
        talks = False
        with open(self.path, encoding="utf-8") as file:
            file.seek(self.read)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break
                self.read += len(line.encode())
                kind, values = parse_record(line) or ("", {})
                talks = talks or bool(kind)
                if kind == "train_inner":
                    self.update = int(values["num_updates"])
                elif kind == "valid":
                    self.validated = int(values["valid_num_updates"])
        return talks


def sample(training: Killable, update: int) -> Optional[Sample]:
    """None where the training has just ended."""
    try:
        # the data loaders and the process that started it are smaller
        memory, process = max((_resident(pid), pid) for pid in training.members())
        return Sample(update, memory, len(os.listdir(f"/proc/{process}/fd")))
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None


def _resident(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def train(folder: Path, updates: int, every: int, random: Optional[Random], bar: tqdm) -> List[List[Sample]]:
    """Complete the run in ``folder``, killed after every checkpoint if there is a ``random`` to say how long after.

    Returns:
        The samples of each time that it was resumed.
    """
    log, output = Log(folder / _RUN / "train.log"), folder.with_suffix(".log")
    parts: List[List[Sample]] = []
    for end in (*(range(every, updates, every) if random else ()), updates):
        training, begun = Killable(command(updates, every), output, folder), False
        parts.append([])
        while not training.wait(_POLL):
            begun = log.follow() or begun
            bar.update(max(0, log.update - bar.n))
            # while it starts, the log tells of the time before; when it is over, the test set is translated
            reading = sample(training, log.update) if begun and log.validated < updates else None
            parts[-1] += [reading] if reading else []
            if random and log.validated >= end < updates:
                training.wait(random.uniform(0, 2))
                training.kill(ALL, random)
                break
        if end == updates and training.process.returncode:
            sys.exit(output.read_text(encoding="utf-8")[-2000:])
    return parts


def curves_differ(one: Path, other: Path) -> List[str]:
    """In words, every value that two logs disagree on."""
    logs = [read_curves(path) for path in (one, other)]
    differences = []
    for kind in logs[0]:
        for name in sorted({*logs[0][kind], *logs[1][kind]} - {*_TIMES}):
            mine, theirs = (log[kind].get(name, {}) for log in logs)
            different = sorted(update for update in {*mine, *theirs} if mine.get(update) != theirs.get(update))
            if different:
                differences.append(f"{kind} {name} at {len(different)} updates, the first {different[0]}")
    return differences


def summarize(undisturbed: List[Sample], parts: List[List[Sample]], updates: int) -> Dict[str, float]:
    """What the samples say about memory and open files; nothing where a training was too short to take any."""
    fifths = [
        [reading for reading in undisturbed if updates * n < 5 * reading.update <= updates * (n + 1)] for n in (1, 4)
    ]
    if not all((*fifths, *parts)):
        return {}
    early, late = (statistics.median(reading.memory for reading in fifth) for fifth in fifths)
    peaks = [max(reading.memory for reading in part) for part in parts]
    return {
        "memory_mib": late,
        "memory_late_to_early": late / early,
        "memory_largest_part_to_smallest": max(peaks) / min(peaks),
        "handles_early": max(reading.handles for reading in fifths[0]),
        "handles_late": max(reading.handles for reading in fifths[1]),
    }


def course(samples: List[Sample], every: int) -> Dict[int, float]:
    """Update → the median of the memory, MiB, over the ``every`` updates that end with it."""
    memory: Dict[int, List[float]] = {}
    for reading in samples:
        memory.setdefault(-(-reading.update // every) * every, []).append(reading.memory)
    return {update: round(statistics.median(values), 1) for update, values in memory.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=20000, help="of each training (default: 20000)")
    parser.add_argument("--every", type=int, default=1000, help="updates between two checkpoints (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills (default: 1)")
    parser.add_argument("--out", type=Path, help="JSON with everything measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        parts, traces = {}, {}
        for name, random in (("undisturbed", None), ("killed", Random(args.seed))):
            # in one folder after the other of one name: some files hold its path
            folder = Path(work) / "folder"
            folder.mkdir()
            with tqdm(total=args.updates, desc=name, unit=" updates") as bar:
                parts[name] = train(folder, args.updates, args.every, random, bar)
            traces[name] = contents(folder)
            folder.rename(Path(work) / name)
        logs = [Path(work) / name / _RUN / "train.log" for name in parts]
        differences = [*curves_differ(*logs), *compared(traces["killed"], traces["undisturbed"])]
        curves = read_curves(logs[0])
    measured = summarize(parts["undisturbed"][0], parts["killed"], args.updates)
    points = sum(len(values) for kind in curves.values() for name, values in kind.items() if name not in _TIMES)
    print(f"{args.updates:,} updates, killed {len(parts['killed']) - 1} times")
    print(f"{points:,} logged values and {len(traces['killed'])} files compared: {len(differences)} differences")
    print("\n".join(differences), end="\n" if differences else "")
    for name, value in measured.items():
        print(f"{name:<34}{value:>10.3f}")
    if args.out:
        write_json(
            args.out,
            {
                **{"updates": args.updates, "every": args.every, "seed": args.seed, "kills": len(parts["killed"]) - 1},
                **{"values": points, "files": len(traces["killed"]), "differences": differences, **measured},
                "memory": course(parts["undisturbed"][0], args.every),
            },
        )
    if differences or measured.get("memory_late_to_early", 1) > _GROWTH:
        sys.exit(1)


if __name__ == "__main__":
    main()
