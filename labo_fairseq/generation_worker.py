"""``fairseq-generate``, several times in one process: to start fairseq takes longer than to translate a small test set.

python -m labo_fairseq.generation_worker '[["DATA", "--gen-subset", "valid"], ["DATA", "--gen-subset", "test"]]' END
"""

import json
import sys

from fairseq_cli.generate import cli_main

from . import criterions  # noqa: F401


def main() -> None:
    """Call fairseq-generate with each list of arguments; a line that says END comes after the output of each."""
    commands, end = sys.argv[1:]
    for arguments in json.loads(commands):
        sys.argv = ["fairseq-generate", *arguments]
        cli_main()
        print(end, flush=True)


if __name__ == "__main__":
    main()
