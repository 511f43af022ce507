"""Translate lines from standard input with the model of a finished run."""

import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import IO, List

from ..data.corpora.sources import Stream
from ..data.encode import to_tokens_and_subwords
from ..data.prepared_corpus import Prepared
from ..data.types import Pair
from ..errors import UserError
from ..evaluation.generate import Decoding, decoding_options, finish
from ..evaluation.runs import Run
from ..subprocesses import ErrorTail


def translate(run: Run, checkpoint: Path, direction: Pair, decoding: Decoding) -> None:
    """Standard input to standard output, line by line; as one types, or in batches from a pipe.

    Raises:
        UserError: a line is no UTF-8 or too long, fairseq fails.
    """
    batch = "1" if sys.stdin.isatty() else "64"
    print(f"{' → '.join(direction)}, {run.folder}; one sentence per line, end with Ctrl-D", file=sys.stderr)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "fairseq_cli.interactive"),
            *decoding_options(run.data, checkpoint, *direction, decoding),
            *("--buffer-size", batch, "--batch-size", batch),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    refused: List[UserError] = []
    Thread(target=_feed, args=(process.stdin, run.data, direction[0], refused), daemon=True).start()
    words = ErrorTail()
    empty = False
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line.startswith("S-"):
                empty = not line.partition("\t")[2].strip()
            elif line.startswith("D-"):
                # the model would make up a sentence for an empty line
                text = "" if empty else line.rstrip("\n").split("\t", 2)[2]
                print(finish(run.data, direction[1], [text])[0], flush=True)
            else:
                words.feed(line)
    if refused:
        raise refused[0]
    if process.returncode != 0:
        raise UserError(f"fairseq-interactive ended with status {process.returncode}: {words}")


def _feed(pipe: IO[str], data: Prepared, source: str, refused: List[UserError]) -> None:
    """Standard input, prepared as the training text was, to the translator; up to a line that is ``refused``."""
    try:
        with pipe:
            for number, line in enumerate(Stream(sys.stdin.buffer, "standard input"), 1):
                try:
                    tokens, _ = to_tokens_and_subwords(data, source, line)
                except UserError as error:
                    raise UserError(f"standard input, line {number}: {error}") from None
                pipe.write(tokens + "\n")
                pipe.flush()
    except BrokenPipeError:  # the translator ended first, and says why
        pass
    except UserError as error:
        refused.append(error)
