"""``labo-fairseq``: what the plugin offers beside fairseq's own commands."""

import argparse
import sys
from pathlib import Path
from typing import List, Optional

from .errors import UserError

# Everything else is imported by the command that needs it: ``labo-fairseq user-dir`` must not wait for torch.

_RUNS = Path("runs/demo")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labo-fairseq", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    user_dir = commands.add_parser("user-dir", help="print the folder that fairseq-train --user-dir takes")
    user_dir.set_defaults(run=lambda args: print(Path(__file__).resolve().parent))

    demo = commands.add_parser(
        "demo",
        help="train and score a small translator of Bible verses, from the archive to BLEU",
        description="Prepare the Bible, train a small Transformer, translate the test chapters, score them. About ten "
        "minutes on two CPU cores. What is finished is kept; a run that was killed is taken up again.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--source", default="de", metavar="LANG", help="language to translate from: de, en or fr")
    demo.add_argument("--target", default="en", metavar="LANG", help="language to translate into")
    demo.add_argument("--criterion", default="labo", choices=["labo", "ls"], help="labo, or plain label smoothing")
    demo.add_argument("--seed", type=int, default=1, help="of initialisation, dropout and the order of the batches")
    demo.add_argument("--folder", type=Path, default=_RUNS, help="everything is written below it")
    demo.add_argument("--name", help="of the run's folder (default: CRITERION-seedN)")
    demo.add_argument("--smoke", action="store_true", help="the whole of it in a minute, for a translator of no use")
    demo.add_argument("--fresh", action="store_true", help="start the training over, whatever an earlier call finished")
    demo.add_argument("extra", nargs="*", metavar="-- OPTION", help="options for fairseq-train, e.g. -- --tau 1.15")
    demo.set_defaults(run=_demo)

    translate = commands.add_parser(
        "translate",
        help="translate lines from standard input with a trained run",
        description="Translate standard input, a line for a line, with a run that 'demo' finished.",
    )
    translate.add_argument(
        "folder", nargs="?", type=Path, default=_RUNS, help=f"of the run; default: the newest below {_RUNS}"
    )
    translate.set_defaults(run=_translate)
    return parser


def _demo(args: argparse.Namespace) -> None:
    from .experiments.demo import FULL, SMOKE, demo

    demo(
        args.folder,
        source=args.source,
        target=args.target,
        method=args.criterion,
        seed=args.seed,
        size=SMOKE if args.smoke else FULL,
        name=args.name or ("smoke" if args.smoke else None),
        extra=args.extra,
        fresh=args.fresh,
    )


def _translate(args: argparse.Namespace) -> None:
    from .experiments.translate import newest_run, translate

    translate(newest_run(args.folder))


def main(argv: Optional[List[str]] = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except UserError as error:
        print(f"labo-fairseq {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"labo-fairseq {args.command}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0
