"""Commands in processes that need not import torch and fairseq first: it takes longer than the tests train.

The server is a Python that has imported what fairseq's console scripts import, and nothing of the plugin. For each
command it forks; the child is what the command would be from there on, with its own arguments, variables, directory and
output, and ends with its status. The Python programs that ``labo-fairseq`` starts come from the server too: in
their place starts a process that asks the server for them, and ends as they end.
"""

import atexit
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress

#: not fairseq-hydra-train, which looks for plugins when Python starts
FAIRSEQ = ("fairseq-train", "fairseq-generate", "fairseq-validate", "fairseq-interactive")
COMMANDS = (*FAIRSEQ, "labo-fairseq")
ADDRESS = "LABO_TESTS_FORK_SERVER"  # where it listens, and the variables that it began with
_AT_THE_START = ("PYTHON", "OMP_", "MKL_", "LD_")  # variables that are read when a process begins
_PROGRAM = "-c"


class ForkServer:
    """A server, started with the first command; it ends with the process that started it, or when it is closed.

    Args:
        commands: of fairseq's, which it can run; labo-fairseq it can run always.
        environment: its variables; by default those of this process when it starts.
    """

    def __init__(self, commands=FAIRSEQ, environment=None):
        self._process = None
        self._commands = commands
        self._environment = environment

    def serves(self, environment):
        """Whether a child would find these variables as a new process does."""
        self._start()
        return _of_the_start(environment) == _of_the_start(self._environment)

    def run(self, arguments, environment, folder):
        """The exit status of one of its commands, negative for a signal, and its output."""
        self._start()
        with tempfile.NamedTemporaryFile() as log:
            environment = {**environment, ADDRESS: self._address}
            status = _ask(self._address, arguments, environment, folder, os.devnull, log.name)
            return status, log.read().decode("utf-8")

    def close(self):
        """End the server."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._folder.cleanup()

    def _start(self):
        if self._process is not None:
            return
        self._environment = self._environment or dict(os.environ)
        self._folder = tempfile.TemporaryDirectory()
        path = os.path.join(self._folder.name, "socket")
        self._address = json.dumps([path, _of_the_start(self._environment)])
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno()), *self._commands],
                stdin=subprocess.PIPE,
                env=self._environment,
                pass_fds=[listener.fileno()],
            )
        atexit.register(self._process.stdin.close)


def _of_the_start(environment):
    return {name: value for name, value in environment.items() if name.startswith(_AT_THE_START)}


def _ask(address, arguments, environment, folder, stdin, stdout):
    """Have the server run a command: its exit status, negative for a signal."""
    job = {"arguments": arguments, "environment": environment, "folder": folder, "stdin": stdin, "stdout": stdout}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(json.loads(address)[0])
        connection.sendall(json.dumps(job).encode() + b"\n")
        with connection.makefile() as reply:
            return int(reply.readline())


def _stand_in(program):
    """Be ``python -c PROGRAM``, in a process of the server where that makes no difference."""
    environment = dict(os.environ)
    address = environment[ADDRESS]
    if _of_the_start(environment) != json.loads(address)[1]:
        os.execv(sys.executable, [sys.executable, *program])
    mine = f"/proc/{os.getpid()}/fd/"
    status = _ask(address, program, environment, os.getcwd(), mine + "0", mine + "1")
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)


# the server


def main(listener, *commands):
    os.dup2(2, 1)
    _copy_no_parents()
    mains = {name: importlib.import_module(f"fairseq_cli.{_module(name)}").cli_main for name in commands}
    mains["labo-fairseq"] = _labo_fairseq
    with suppress(ImportError):  # older torch
        import torch._dynamo  # noqa: F401  an optimizer imports it
    _load_what_a_training_loads()
    # or each child's garbage collector visits, and so copies, all that was imported: half of its time
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for the commands
    with socket.socket(fileno=int(listener)) as requests:
        while sys.stdin not in select.select([requests, sys.stdin], [], [])[0]:
            connection, _ = requests.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                requests.close()
                return _answer(connection, mains)
            connection.close()
    return None


def _answer(connection, mains):
    with connection.makefile() as request:
        job = json.loads(request.readline())
    child = os.fork()
    if child != 0:
        _, status = os.waitpid(child, 0)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        connection.sendall(f"{code}\n".encode())
        os._exit(0)
    connection.close()
    os.dup2(os.open(job["stdin"], os.O_RDONLY), 0)
    output = os.open(job["stdout"], os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    sys.argv = job["arguments"]
    _end(_program if sys.argv[0] == _PROGRAM else mains[os.path.basename(sys.argv[0])])


def _end(function):
    """Call it and exit as Python does, but for taking apart, and so copying, all that was imported."""
    try:
        code = function()
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code or 0)


def _labo_fairseq():
    _forget_fairseqs_log()
    _serve_what_it_starts()
    return importlib.import_module("labo_fairseq.cli").main()


def _program():
    _, program, *arguments = sys.argv
    sys.argv = [_PROGRAM, *arguments]
    if arguments[0] == "labo_fairseq":
        _forget_fairseqs_log()
    _serve_what_it_starts()
    exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


def _forget_fairseqs_log():
    logging.getLogger().handlers.clear()  # of fairseq_cli, which this command would not have imported


def _serve_what_it_starts():
    subprocesses = importlib.import_module("labo_fairseq.subprocesses")
    command_of = subprocesses.child_command

    def child_command(module, arguments):
        python, *program = command_of(module, arguments)
        return [python, "-S", "-E", __file__, *program]

    subprocesses.child_command = child_command


def _load_what_a_training_loads():
    """Parse a command line: what fairseq and Hydra load for it takes more seconds than a test trains."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    arguments = ["data", "--arch", "transformer", "--optimizer", "adam"]
    convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), arguments))


def _copy_no_parents():
    """Two seconds of each command: OmegaConf 2.0 copies with a value all that the value is a part of."""
    import omegaconf

    if not omegaconf.__version__.startswith("2.0"):
        return

    def without_parent(deepcopy):
        def copied(self, *arguments):
            memo = arguments[-1]
            parent = self.__dict__["_parent"]
            memo.setdefault(id(parent), parent)
            return deepcopy(self, *arguments)

        return copied

    omegaconf.ValueNode._deepcopy_impl = without_parent(omegaconf.ValueNode._deepcopy_impl)
    for container in (omegaconf.DictConfig, omegaconf.ListConfig):
        container.__deepcopy__ = without_parent(container.__deepcopy__)


def _module(command):
    return command[len("fairseq-") :].replace("-", "_")


if __name__ == "__main__":
    if sys.argv[1] == _PROGRAM:
        _stand_in(sys.argv[1:])
    sys.exit(main(*sys.argv[1:]))
