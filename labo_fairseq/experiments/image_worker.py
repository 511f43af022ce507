"""One of several processes that make a run on images, started by torchrun.

It says in lines of JSON to the process that started torchrun how the training goes, and why it failed.
"""

import json
import sys
from pathlib import Path
from typing import Any

from ..errors import UserError, told
from ..images.workers import join_workers
from ..torchrun_worker import run_worker
from .image_result import ImageRun
from .image_run import complete_run, load_images


def main() -> None:
    """Complete the run in the folder ``sys.argv[1]``; ``sys.argv[2]`` says which one it is.

    Raises:
        SystemExit: it fails.
    """
    try:
        run_worker(_complete)
    except (UserError, OSError) as error:
        line = told(error)
        if line is None:
            raise
        _say(failed=line)
        sys.exit(1)


def _complete() -> None:
    task = json.loads(sys.argv[2])
    archives = task["archive_dir"] and Path(task["archive_dir"])
    with join_workers(task["gpus"]) as (workers, device):
        data = load_images(task["dataset"], task["config"], archives)
        run = ImageRun(Path(sys.argv[1]), task["config"], data.files)
        complete_run(run, data, lambda record: _say(record=record), workers, device)


def _say(**message: Any) -> None:
    # in one piece, on a line of its own: another worker may have begun a line of its own, or be about to
    sys.stdout.write(f"\n{json.dumps(message)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
