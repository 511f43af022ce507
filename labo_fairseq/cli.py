"""``labo-fairseq``: what the plugin offers beside fairseq's own commands."""

import argparse
import sys
from pathlib import Path
from typing import List, Optional

from .errors import UserError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labo-fairseq", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    user_dir = commands.add_parser("user-dir", help="print the folder that fairseq-train --user-dir takes")
    user_dir.set_defaults(run=lambda args: print(Path(__file__).resolve().parent))
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except UserError as error:
        print(f"labo-fairseq {args.command}: {error}", file=sys.stderr)
        return 1
    return 0
