"""Trainings of several processes without a GPU, on one node and on two, from fairseq's commands and our scripts."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import campaign
import pytest
from checkouts import ROOT, fake_python
from fairseq_runs import (
    LABO,
    assert_same_parameters,
    command,
    parameters,
    run,
    train,
    train_command,
)

from labo_fairseq.errors import UserError
from labo_fairseq.experiments.machines import Machines, machines_here
from labo_fairseq.subprocesses import free_port

PLAIN = (*LABO, "--dropout", "0", "--cpu")
SIZES = {"encoder.layers": 1, "decoder.layers": 1, "dropout": 0}
SETTINGS = (
    *(f"model.{key}={value}" for key, value in SIZES.items()),
    *("optimization.max_update=12", "optimization.update_freq=[2]", "dataset.max_tokens=1000"),
    *("checkpoint.save_interval_updates=4", "common.log_interval=1"),
)


@pytest.fixture(scope="module")
def one_worker(data, tmp_path_factory):
    """The training that two workers must equal."""
    folder = tmp_path_factory.mktemp("one") / "checkpoints"
    train(data, folder, *PLAIN, "--update-freq", "2", updates=8)
    return folder


@pytest.mark.parametrize("start", ["fairseq", "torchrun"])
def test_fairseq_starts_workers_without_gpus(data, one_worker, tmp_path, start):
    """Killed and resumed: a worker is sent its state by the first one."""
    for updates in (5, 8):
        arguments = train_command(data, tmp_path, *PLAIN, updates=updates)
        if start == "fairseq":
            arguments += ["--distributed-world-size", "2"]
        else:
            arguments = [command("torchrun"), "--nproc_per_node", "2", "--master_port", free_port(), *arguments]
        done = run(*arguments, env={"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stdout[-3000:]
        assert done.stdout.count("talk through gloo") == 1 if start == "fairseq" else 2
    assert_same_parameters(parameters(tmp_path), parameters(one_worker))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A function that starts a script on the data of Multi30k, and the folder of its runs."""
    folder = tmp_path_factory.mktemp("nodes")
    env = {
        **os.environ,
        **fake_python(folder),
        "LABO_VENV": str(folder / "venv"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "NUM_GPUS": "0",
    }

    def start(script, name, **variables):
        archives = ("--archive-dir", campaign.shared("multi30k"))
        corpus = () if script == "run_multi30k_deen.sh" else ("multi30k", "de-en")
        options = (*corpus, "--smoke", "--folder", folder / "runs", "--name", name, *archives, *SETTINGS)
        return subprocess.Popen(
            ["bash", str(ROOT / "scripts" / script), *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            env={**env, **variables},
        )

    return start, folder / "runs" / "multi30k" / "de-en"


def descendants(process):
    """Numbers of the processes below one."""
    children = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(pid))
    below = children.get(process, [])
    return [*below, *(deeper for child in below for deeper in descendants(child))]


def wait_for(condition, what):
    deadline = time.time() + 300
    while not condition():
        assert time.time() < deadline, what
        time.sleep(0.05)


@pytest.mark.once
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_nodes_of_which_one_is_killed(nodes, tmp_path):
    """torchrun's two nodes end with the parameters of one process, after a kill and a second start by SLURM."""
    start, runs = nodes
    alone = start("run_multi30k_deen.sh", "one")
    output, _ = alone.communicate()
    assert alone.returncode == 0, output

    master = f"127.0.0.1:{free_port()}"
    first, second = (start("multi_node_torchrun.sh", "two", NODES="2", NODE=str(k), MASTER=master) for k in range(2))
    checkpoint = runs / "two" / "checkpoints" / "checkpoint_1_4.pt"
    wait_for(lambda: checkpoint.exists() or first.poll() is not None, "no checkpoint of update 4")
    below = descendants(second.pid)
    assert below
    second.send_signal(signal.SIGKILL)
    output, _ = first.communicate(timeout=240)  # torchrun alone would wait 300 s for the other node
    assert first.returncode == 1
    last = output.splitlines()[-1]
    assert last.startswith("labo-fairseq run: fairseq-hydra-train ended with status 1; see "), output[-3000:]
    assert "train.log: another worker of this training ended (" in last
    assert last.endswith("re-run the same command on every node to resume from the last checkpoint")
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "processes outlive their node")
    second.communicate()
    assert not (runs / "two" / "training.json").exists()

    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "scontrol").write_text('#!/bin/sh\n[ "$*" = "show hostnames 127.0.0.[1-2]" ] && echo 127.0.0.1\n')
    (commands / "srun").write_text(
        '#!/usr/bin/env bash\n[ "$1" = --kill-on-bad-exit=1 ] && shift\n'
        'SLURM_NODEID=1 "$@" & SLURM_NODEID=0 "$@" && wait $!\n'
    )
    for path in commands.iterdir():
        path.chmod(0o755)
    slurm = {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        **{"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "127.0.0.[1-2]", "MASTER_PORT": str(free_port())},
    }
    job = start("slurm_multi_node.sh", "two", **slurm)
    output, _ = job.communicate()
    assert job.returncode == 0, output[-3000:]
    assert "node 1 has trained" in output
    made = re.findall(r'"num_updates": "(\d+)"', (runs / "two" / "train.log").read_text(encoding="utf-8"))
    assert "12" in made
    assert made.count("3") == 1, "it went on from a checkpoint"
    assert_same_parameters(parameters(runs / "two" / "checkpoints"), parameters(runs / "one" / "checkpoints"))
    assert (runs / "two" / "result.json").exists()


def test_workers_on_the_cpu_of_one_machine(nodes):
    start, runs = nodes
    alone, two = (start("run_multi30k_deen.sh", name, NUM_CPU_WORKERS=str(n)) for name, n in (("one", 1), ("cpus", 2)))
    for process in (alone, two):
        output, _ = process.communicate()
        assert process.returncode == 0, output[-3000:]
    assert_same_parameters(parameters(runs / "cpus" / "checkpoints"), parameters(runs / "one" / "checkpoints"))


@pytest.mark.parametrize(
    ("variables", "options", "message"),
    [
        ({"NUM_GPUS": "all"}, {}, "NUM_GPUS is 'all': it must be a number of GPUs, 0 for the CPU"),
        ({"NUM_GPUS": "1000"}, {}, "1000 GPUs were asked for and "),
        ({"NUM_CPU_WORKERS": "0"}, {}, "NUM_CPU_WORKERS is '0': it must be a number of processes, at least 1"),
        ({"NUM_CPU_WORKERS": "a[$(touch x)]"}, {}, "it must be a number of processes, at least 1"),
        ({}, {"nodes": 2, "node": 2, "master": "a:1"}, "--node must be below --nodes, which is 2, got 2"),
        ({}, {"nodes": 2, "master": "a"}, "--master must be HOST:PORT of node 0, got 'a'"),
        ({}, {"nodes": 2}, "--master must be HOST:PORT of node 0, got ''"),
        ({}, {"master": "a:1"}, "--master goes with --nodes"),
    ],
)
def test_what_does_not_go_together_is_refused(variables, options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        machines_here(variables, **options)


def test_what_torchrun_is_told():
    machines = machines_here({"NUM_GPUS": "0", "NUM_CPU_WORKERS": "3"}, 2, 1, "[::1]:29500")
    assert machines.workers == 6
    assert " ".join(machines.torchrun()) == (
        "--nnodes 2 --node_rank 1 --nproc_per_node 3 --master_addr ::1 --master_port 29500"
    )


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert Machines(gpus=0, cpu_workers=3).environment() == {"OMP_NUM_THREADS": "2"}
    assert Machines(gpus=0).environment() == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert Machines(gpus=0, cpu_workers=3).environment() == {}
