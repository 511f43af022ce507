"""What goes wrong while a command works: damaged checkpoints, full and read-only disks, killed processes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import (
    PolynomialDecayLRSchedule,
    PolynomialDecayLRScheduleConfig,
)
from fairseq_runs import LABO, assert_same_parameters, parameters, run, train

import labo_fairseq.criterions  # noqa: F401  patches fairseq
from labo_fairseq.checkpoints import load_checkpoint, recover_checkpoints
from labo_fairseq.data.parallel_map import map_whole, mapped
from labo_fairseq.errors import UserError
from labo_fairseq.subprocesses import USER_DIR, child_command, run_fairseq

#: several epochs; the learning rate is past its warm-up, and decays
SCHEDULE = (
    *("--max-tokens", "9000", "--lr-scheduler", "polynomial_decay", "--warmup-updates", "4"),
    *("--total-num-update", "30", "--save-interval-updates", "1"),
)
LAST = 11  # update, in the middle of the second epoch


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """A folder with a checkpoint of every update of a training that was never stopped, and its records."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, train(data, folder, *LABO, *SCHEDULE, updates=LAST)


def states(folder):
    """Update → the checkpoint that was written after it."""
    return {int(path.stem.rpartition("_")[2]): path for path in folder.glob("checkpoint_?_*.pt")}


@pytest.mark.parametrize("where", ["in an epoch", "between two"])
def test_continues_in_another_epoch_as_if_it_had_never_stopped(data, undisturbed, tmp_path, where):
    folder, expected = undisturbed
    epochs = [expected[update]["epoch"] for update in sorted(expected)]
    begin = epochs.index(2)  # updates before the second epoch
    assert begin > 4
    stop = begin + (where == "in an epoch")
    train(data, tmp_path, *LABO, *SCHEDULE, updates=stop)
    records = train(data, tmp_path, *LABO, *SCHEDULE, updates=LAST)
    assert sorted(records) == list(range(stop + 1, LAST + 1))
    for name in ("loss", "nll_loss", "alpha", "lr", "wpb", "bsz"):
        values = {update: record.get(name) for update, record in records.items()}
        assert values == {update: expected[update].get(name) for update in records}, name
    assert_same_parameters(parameters(tmp_path), parameters(folder))


def test_the_log_continues_between_two_epochs(data, undisturbed, tmp_path):
    """An average over four updates is one over four, though the training stopped between them."""
    _, expected = undisturbed
    between = [expected[update]["epoch"] for update in sorted(expected)].index(2)
    assert 4 < between < 8
    for stop in (between, 8):
        records = train(data, tmp_path, *LABO, *SCHEDULE, "--log-interval", "4", updates=stop)
    words = sum(expected[update]["wpb"] for update in (5, 6, 7, 8)) / 4
    assert records[8]["wpb"] == pytest.approx(words, abs=0.1)


def test_an_epoch_begins_with_the_rate_of_its_update():
    def schedule():
        weights = [torch.nn.Parameter(torch.zeros(1))]
        settings = PolynomialDecayLRScheduleConfig(warmup_updates=4, total_num_update=30, lr=[1e-3])
        optimizer = FairseqAdam(FairseqAdamConfig(adam_betas="(0.9, 0.98)", lr=[1e-3]), weights)
        return PolynomialDecayLRSchedule(settings, optimizer)

    first = schedule()
    assert first.step_begin_epoch(1) == pytest.approx(1e-3 / 4), "the rate of the first update, as fairseq has it"
    for made, rate in ((3, 1e-3 * 3 / 4), (17, 1e-3 * 13 / 26)):
        taken_up = schedule()
        assert first.step_update(made) == taken_up.step_update(made) == pytest.approx(rate)
        assert first.step_begin_epoch(2) == taken_up.step_begin_epoch(2) == pytest.approx(rate)


def cut(content):
    return content[: len(content) // 2]


def flipped(content):
    """One bit, in the middle of the parameters."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES = {
    "cut": cut,
    "a bit flipped": flipped,
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "another file": lambda content: b"PK\x03\x04 is how an archive begins",
}


@pytest.fixture
def some(undisturbed, tmp_path):
    """A folder with the states of three updates, the last one also under fairseq's names for it."""
    folder = undisturbed[0]
    for update in (LAST - 2, LAST - 1, LAST):
        path = states(folder)[update]
        shutil.copy2(path, tmp_path / path.name)
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        shutil.copy2(folder / name, tmp_path / name)
    return tmp_path


def updates_of(path):
    return load_checkpoint(path)["optimizer_history"][-1]["num_updates"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(some, capfd, damage):
    damaged = [path for path in some.glob("*.pt") if updates_of(path) == LAST]
    assert {"checkpoint_last.pt", states(some)[LAST].name} <= {path.name for path in damaged}
    for path in damaged:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert recover_checkpoints(some) == LAST - 1
    said = capfd.readouterr().err.splitlines()
    for path in damaged:
        told = f"{path} cannot be read as a checkpoint: .*; it is kept as {path.name}.damaged"
        assert sum(bool(re.fullmatch(told, line)) for line in said) == 1
        assert path.with_name(f"{path.name}.damaged").exists()
    assert said[-1] == f"the training resumes from {states(some)[LAST - 1]}"
    assert len(said) == len(damaged) + 1
    assert updates_of(some / "checkpoint_last.pt") == LAST - 1
    best = load_checkpoint(some / "checkpoint_best.pt")["extra_state"]
    assert best["val_loss"] == load_checkpoint(some / "checkpoint_last.pt")["extra_state"]["best"]


def test_the_best_checkpoint_is_found_again(undisturbed, some, capfd):
    whole = load_checkpoint(some / "checkpoint_best.pt")
    best = some / "checkpoint_best.pt"
    best.write_bytes(cut(best.read_bytes()))
    recover_checkpoints(some)
    assert "checkpoint_best.pt cannot be read" in capfd.readouterr().err
    saved = load_checkpoint(best)["extra_state"]
    assert saved["val_loss"] == saved["best"] == whole["extra_state"]["best"]


def test_without_an_intact_checkpoint_the_training_starts_over(some, capfd):
    for path in some.glob("*.pt"):
        path.write_bytes(cut(path.read_bytes()))
    assert recover_checkpoints(some) == 0
    assert not list(some.glob("*.pt"))
    assert len(list(some.glob("*.damaged"))) == 5 == capfd.readouterr().err.count("cannot be read as a checkpoint")


@pytest.fixture
def disk(tmp_path):
    """Runs a command with a file system of its own, of so many bytes, on the folder ``disk``."""
    (tmp_path / "disk").mkdir()
    isolated = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    script = 'mount -t tmpfs -o "$1" tmpfs disk || exit; shift; "$@"; status=$?; echo left:; ls -A disk; exit $status'

    def on_disk(options, *arguments):
        done = run(*isolated, "sh", "-c", script, "sh", options, *arguments, cwd=tmp_path)
        output, _, left = done.stdout.partition("left:\n")
        return done.returncode, output, set(left.split())

    try:
        status, output, _ = on_disk("size=4k", "true")
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if status:
        pytest.skip(f"no file system can be mounted here: {output.strip()}")
    return on_disk


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=256k", "No space left on device; free some space and re-run the same command to resume"),
        ("ro", "disk/.lock: Read-only file system; choose another folder, or change its permissions"),
    ],
)
def test_a_disk_that_takes_no_more(corpus, tmp_path, disk, options, message):
    for side, language in enumerate(("de", "en")):
        text = "\n".join(pair[side] for pair in corpus["train"])
        (tmp_path / f"text.{language}").write_text(text + "\n", encoding="utf-8", newline="\n")
    own = [text for split in ("--train", "--valid", "--test") for text in (split, "text.de", "text.en")]
    prepare = (sys.executable, "-m", "labo_fairseq", "prepare", "custom", "de-en", "--destdir", "disk/data", *own)
    status, output, left = disk(options, *prepare, "--workers", "1", "--bpe-operations", "100")
    assert status == 1
    last = output.splitlines()[-1]
    assert last.startswith("labo-fairseq prepare: "), output
    assert message in last
    assert "Traceback" not in output
    assert left <= {".lock"}


def die(chunk):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.once
@pytest.mark.parametrize("function", [mapped, map_whole])
def test_a_killed_worker_ends_the_preparation(capfd, function):
    with pytest.raises(UserError, match="text: a process was killed, possibly out of memory"):
        list(function(die, range(2000), 2, "text"))


def sleep(folder, chunk):
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def continues(process):
    """Whether that process has not ended; a zombie has."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.once
def test_workers_die_with_their_parent(tmp_path):
    program = "import sys; from pathlib import Path; from functools import partial; import test_faults; "
    program += "from labo_fairseq.data.parallel_map import mapped; "
    program += "list(mapped(partial(test_faults.sleep, Path(sys.argv[1])), range(2000), 2, 'text'))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    call = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(call, env=environment, stderr=subprocess.DEVNULL) as parent:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2 or parent.poll() is not None)
        parent.kill()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    wait_for(lambda: not any(map(continues, workers)))


@pytest.mark.once
def test_a_child_takes_its_own_children_along(tmp_path):
    """As a training on several GPUs does, and as any command with workers."""
    (tmp_path / "family.py").write_text(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    call = partial(subprocess.Popen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    with call(child_command("family", [])) as child:
        grandchild = int(child.stdout.readline())
        assert continues(grandchild)
        child.stdin.close()  # as when the parent dies
    wait_for(lambda: not continues(grandchild))


@pytest.mark.once
def test_a_command_that_is_killed_says_so(tmp_path):
    def kill(line):
        """The process whose arguments name the folder of this test."""
        for process in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                call = Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(tmp_path) in call:
                os.kill(process, signal.SIGKILL)

    with pytest.raises(
        UserError, match=r"fairseq-train was killed \(SIGKILL\), possibly out of memory; re-run the same command"
    ):
        run_fairseq("train", [str(tmp_path), "--user-dir", USER_DIR], tmp_path / "log", kill)


READS_AHEAD = """
import torch
from fairseq.data.iterators import BufferedIterator
import labo_fairseq.criterions

class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 100000

    def __getitem__(self, number):
        return torch.ones(30).cumsum(0)

batches = BufferedIterator(2000, torch.utils.data.DataLoader(Numbers(), batch_size=64))
for _ in range(4):
    next(batches)
raise SystemExit(3)
"""


def test_a_program_ends_with_its_own_status_while_batches_are_read_ahead():
    done = run(sys.executable, "-W", "ignore", "-c", READS_AHEAD)
    assert done.returncode == 3, done.stdout
    assert "terminate" not in done.stdout
