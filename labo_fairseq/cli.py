"""``labo-fairseq``: corpora, trainings and scores around fairseq's own commands."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import List, Optional

from .errors import UserError

# Everything else is imported by the command that needs it: ``labo-fairseq user-dir`` must not wait for torch.

_RUNS = Path("runs")
_CRITERIA = ("labo", "ls", "ce")
_DATA_HELP = "folder with archives that you have already (default: LABO_DATA)"
_NEWEST_HELP = "of the run, or the newest run below it"
_OUT_HELP = "folder for everything that is written (default: analysis, in the folder of the last run)"


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells every default but None, which says nothing."""

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        return action.help if action.default is None else super()._get_help_string(action)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labo-fairseq",
        description=f"{__doc__} For a training of your own:  fairseq-train DATA --user-dir $(labo-fairseq user-dir) "
        "--criterion labo ...",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_user_dir,
        _add_demo,
        _add_prepare,
        _add_run,
        _add_config,
        _add_evaluate,
        _add_compare,
        _add_analyse,
        _add_report,
        _add_translate,
    ):
        add(commands)
    return parser


def _command(commands, name: str, run, summary: str, description: str = "") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=description or f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=_Help,
    )
    parser.set_defaults(run=run)
    return parser


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--criterion", default="labo", choices=_CRITERIA, help="labo, label smoothing, cross-entropy")
    parser.add_argument("--seed", type=int, default=1, help="of initialisation, dropout and the order of the batches")
    parser.add_argument("--smoke", action="store_true", help="all of it in minutes on a CPU, for a model of no use")
    parser.add_argument("--fresh", action="store_true", help="start the training over, whatever an earlier call did")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="more settings, e.g. criterion.tau=1.15 optimization.lr=[0.001]",
    )


def _add_user_dir(commands) -> None:
    _command(commands, "user-dir", _user_dir, "print the folder that fairseq-train --user-dir takes")


def _user_dir(args: argparse.Namespace) -> None:
    print(Path(__file__).resolve().parent)


def _add_demo(commands) -> None:
    parser = _command(
        commands,
        "demo",
        _demo,
        "train and score a small translator of Bible verses, from the archive to BLEU",
        "Prepare the Bible, train a small Transformer, translate the test chapters, score them. About ten minutes on "
        "two CPU cores. What is finished is kept; a run that was killed is taken up again.",
    )
    parser.add_argument("--source", default="de", metavar="LANG", help="language to translate from: de, en or fr")
    parser.add_argument("--target", default="en", metavar="LANG", help="language to translate into")
    parser.add_argument("--folder", type=Path, default=_RUNS / "demo", help="everything is written below it")
    parser.add_argument("--name", help="of the run's folder (default: CRITERION-seedN)")
    _add_training_options(parser)


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
        overrides=args.settings,
        gpus=_gpus(),
        fresh=args.fresh,
    )


def _add_prepare(commands) -> None:
    parser = _command(
        commands,
        "prepare",
        _prepare,
        "prepare a corpus: fetch, tokenise, clean, learn and apply BPE, binarise",
        "Prepare one of the paper's corpora, or 'custom': your own files through the same pipeline. Both directions "
        "of a language pair share their files.",
    )
    parser.add_argument("corpus", help="iwslt14, iwslt17, wmt14, multi30k or custom")
    parser.add_argument("direction", help="such as de-en; 'multilingual' for iwslt17")
    parser.add_argument("--folder", type=Path, help="of the result (default: below runs/CORPUS)")
    parser.add_argument("--archive-dir", type=Path, metavar="DIR", help=_DATA_HELP)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--smoke", action="store_true", help="the first 2000 pairs only")
    own = parser.add_argument_group("custom", "files of one sentence a line, plain or .gz, source language first")
    for split in ("train", "valid", "test"):
        own.add_argument(f"--{split}", type=Path, nargs=2, metavar=("SOURCE", "TARGET"))
    own.add_argument("--validation-every", type=int, metavar="N", help="instead of --valid: every Nth training pair")
    own.add_argument("--bpe-operations", type=int, default=10000, metavar="N", help="of the joint BPE")
    own.add_argument("--lowercase", action="store_true", help="lower-case all text")
    own.add_argument(
        "--clean", nargs=3, type=float, metavar=("RATIO", "MIN", "MAX"), help="drop training pairs by tokens, as Moses"
    )


def _prepare(args: argparse.Namespace) -> None:
    from .experiments.recipes import find, prepare_corpus, prepare_custom

    if args.corpus == "custom":
        folder = args.folder or _RUNS / "custom" / f"data-{args.direction}"
        files = {split: getattr(args, split) for split in ("train", "valid", "test") if getattr(args, split)}
        data = prepare_custom(
            args.direction,
            files,
            folder,
            bpe_operations=args.bpe_operations,
            lowercase=args.lowercase,
            clean=args.clean,
            validation_every=args.validation_every,
            workers=args.workers,
        )
    else:
        recipe, _ = find(args.corpus, args.direction)
        folder = args.folder or _data_folder(_RUNS, args.corpus, recipe.name, args.smoke)
        data = prepare_corpus(recipe, folder, args.workers, args.archive_dir, args.smoke)
    for split, number in data.pairs.items():
        print(f"{split:<20}{number:>12,} pairs")
    print(f"{'fairseq-train DATA':<20}{data.binarised}")


def _add_run(commands) -> None:
    parser = _command(
        commands,
        "run",
        _run,
        "prepare, train and score one of the paper's experiments",
        "Prepare the corpus, train with configs/CORPUS_DIRECTION_CRITERION.yaml, translate the test sets, score them. "
        "Steps whose output is complete are skipped; a run that was killed is taken up again. NUM_GPUS says how many "
        "GPUs to use (default: all); the batch of an update does not depend on it.",
    )
    parser.add_argument("corpus", help="iwslt14, iwslt17, wmt14 or multi30k")
    parser.add_argument("direction", help="such as de-en; 'multilingual' for iwslt17")
    parser.add_argument("--folder", type=Path, default=_RUNS, help="everything is written below it")
    parser.add_argument("--archive-dir", type=Path, metavar="DIR", help=_DATA_HELP)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes that prepare")
    _add_training_options(parser)


def _run(args: argparse.Namespace) -> None:
    from .experiments.recipes import build_run, find, prepare_corpus
    from .experiments.summary import summarise

    recipe, _ = find(args.corpus, args.direction)
    smoke = "-smoke" if args.smoke else ""
    data = prepare_corpus(
        recipe,
        _data_folder(args.folder, args.corpus, recipe.name, args.smoke),
        args.workers,
        args.archive_dir,
        args.smoke,
    )
    folder = args.folder / args.corpus / args.direction / f"{args.criterion}-seed{args.seed}{smoke}"
    run = build_run(
        args.corpus, args.direction, args.criterion, args.seed, data, folder, args.settings, smoke=args.smoke
    )
    summarise(run, run.complete(_gpus(), args.fresh))


def _add_config(commands) -> None:
    parser = _command(
        commands,
        "config",
        _config,
        "print a configuration for fairseq-hydra-train, whole and in one piece",
        "Print configs/NAME.yaml with its parts, fitted to a number of workers: for torchrun, SLURM, or to change by "
        "hand. Save it as DIR/training.yaml and start  fairseq-hydra-train --config-dir DIR --config-name training",
    )
    parser.add_argument("name", help="such as wmt14_en-de_labo")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="more settings, e.g. criterion.tau=1.15")
    parser.add_argument("--data", type=Path, required=True, help="folder that 'labo-fairseq prepare' made")
    parser.add_argument("--save-dir", type=Path, required=True, help="for the checkpoints")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="of all nodes together")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16", "bf16"], help="of the training")


def _config(args: argparse.Namespace) -> None:
    from .data.prepared import Prepared
    from .experiments.config import compose, for_workers, to_yaml, with_paths

    config = for_workers(compose(args.name, args.settings), args.workers)
    if args.precision != "fp32":
        config["common"][args.precision] = True
    print(to_yaml(with_paths(config, Prepared(args.data), args.save_dir)), end="")


def _add_evaluate(commands) -> None:
    parser = _command(
        commands,
        "evaluate",
        _evaluate,
        "score a finished run again: another checkpoint, an average of several, another search",
    )
    parser.add_argument("folder", type=Path, help="of the run")
    parser.add_argument("--checkpoint", default="best", choices=["best", "last"], help="which to score")
    parser.add_argument("--average", type=int, metavar="N", help="score the mean of the N newest checkpoints instead")
    parser.add_argument("--beam", type=int, default=5, help="width of the search")
    parser.add_argument("--lenpen", type=float, default=1.0, help="length penalty: above 1 favours longer translations")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _evaluate(args: argparse.Namespace) -> None:
    import json

    from .evaluation.decode import Decoding
    from .experiments.run import evaluate_again, load_run
    from .experiments.summary import show_scores

    decoding = Decoding(args.beam, args.lenpen)
    evaluation = evaluate_again(load_run(args.folder), args.checkpoint, args.average, decoding)
    if args.json:
        print(json.dumps(evaluation, indent=2))
    else:
        show_scores(evaluation)


def _add_compare(commands) -> None:
    parser = _command(
        commands,
        "compare",
        _compare,
        "compare finished runs on the same test set with paired bootstrap resampling",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="folders of runs, the baseline first")
    parser.add_argument("--test", help="name of the test set (default: the main one)")
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="bootstrap samples")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _compare(args: argparse.Namespace) -> None:
    import json

    from .evaluation.compare import render
    from .experiments.comparison import compare_runs
    from .experiments.run import load_run

    compared = compare_runs([load_run(folder) for folder in args.folders], args.test, args.samples)
    print(json.dumps([each.to_json() for each in compared], indent=2) if args.json else render(compared))


def _add_analyse(commands) -> None:
    parser = commands.add_parser(
        "analyse",
        help="the paper's section 5 for finished runs: frequency, confidence, labels",
        description="What distinguishes finished runs beyond their scores. Each analysis prints tables and writes "
        "Markdown, CSV, JSON and PNG.",
    )
    analyses = parser.add_subparsers(dest="analysis", required=True, metavar="ANALYSIS")
    frequency = _command(
        analyses,
        "frequency",
        _frequency,
        "BLEU on frequent and on rare text (Table 4)",
        "Cut the validation and test sets into three equal parts by the Frequency Score of their source sentences, "
        "the mean count of a sentence's subwords in the training text, and score each run on each part. What a run "
        "has not translated yet, such as the validation set, is translated with beam 5 and kept for the next time.",
    )
    confidence = _command(
        analyses,
        "confidence",
        _confidence,
        "probabilities of the chosen tokens on the same parts (figure 2), and calibration",
        "The probabilities of the tokens that beam search with beam 5 chose; and, with the right translation given "
        "token by token, accuracy, entropy, expected calibration error and reliability diagrams.",
    )
    for each in (frequency, confidence):
        _add_runs(each)
    confidence.add_argument(
        "--bins", type=int, default=10, metavar="M", help="of the calibration error, of equal width"
    )
    labels = _command(
        analyses,
        "labels",
        _labels,
        "the smoothed label of every token of a translation (figure 1c)",
        "For each token of TARGET as the translation of SOURCE: the smoothing mass α, the entropy H of the model's "
        "prediction, the tokens that P* finds most probable, and the label, beside that of uniform label smoothing. "
        'For example:  labo-fairseq analyse labels runs/bible/de-en/labo-seed1 "Am Anfang war das Wort." '
        '"In the beginning was the Word."',
    )
    labels.add_argument("folder", nargs="?", type=Path, default=_RUNS, metavar="RUN", help=_NEWEST_HELP)
    labels.add_argument("source_text", metavar="SOURCE", help="a sentence, as in the raw text")
    labels.add_argument("target_text", metavar="TARGET", help="its translation")
    labels.add_argument("--source", default="", metavar="LANG", help="language of SOURCE, where a run knows several")
    labels.add_argument("--top", type=int, default=5, metavar="N", help="how many tokens of P* to show")
    labels.add_argument("--tau", type=float, help="temperature of P* (default: the run's, 1.25 if it has none)")
    labels.add_argument("--alpha", help="'adaptive' or a number (default: the run's, or adaptive)")
    labels.add_argument("--rho", type=float, help="of the adaptive α (default: the run's, or 0.5)")
    labels.add_argument("--out", type=Path, metavar="DIR", help=_OUT_HELP)


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="folders of runs, the baseline first")
    parser.add_argument("--out", type=Path, metavar="DIR", help=_OUT_HELP)


def _frequency(args: argparse.Namespace) -> None:
    from .experiments.analyses import analyse_frequency, publish, workplace
    from .experiments.run import load_run

    runs = [load_run(folder) for folder in args.folders]
    with workplace(runs, args.out) as folder:
        publish(analyse_frequency(runs, folder), folder)


def _confidence(args: argparse.Namespace) -> None:
    from .experiments.analyses import analyse_confidence, publish, workplace
    from .experiments.run import load_run

    runs = [load_run(folder) for folder in args.folders]
    with workplace(runs, args.out) as folder:
        publish(analyse_confidence(runs, folder, args.bins), folder)


def _labels(args: argparse.Namespace) -> None:
    from .experiments.analyses import analyse_labels, publish, workplace
    from .experiments.translate import direction_of, newest_run

    run = newest_run(args.folder)
    given = {name: getattr(args, name) for name in ("tau", "alpha", "rho") if getattr(args, name) is not None}
    found = analyse_labels([run], direction_of(run, args.source), args.source_text, args.target_text, given, args.top)
    with workplace([run], args.out) as folder:
        publish(found, folder)


def _add_report(commands) -> None:
    parser = _command(
        commands,
        "report",
        _report,
        "one self-contained page on finished runs: curves, scores, cost, analyses",
        "Write report.html: training curves, α and entropy over time, scores with their signatures, cost, settings, "
        "and the three analyses. It is one file that opens without a network, in any browser, light or dark. The "
        "files of the analyses are written beside it.",
    )
    _add_runs(parser)


def _report(args: argparse.Namespace) -> None:
    from .experiments.analyses import workplace
    from .experiments.report import write_report
    from .experiments.run import load_run

    runs = [load_run(folder) for folder in args.folders]
    with workplace(runs, args.out) as folder:
        print(f"{'report':<10}{write_report(runs, folder)}")


def _add_translate(commands) -> None:
    parser = _command(
        commands,
        "translate",
        _translate,
        "translate lines from standard input with a trained run",
        "Translate standard input, a line for a line, with a finished run.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=_RUNS, help=_NEWEST_HELP)
    parser.add_argument("--source", default="", metavar="LANG", help="to translate from, where a run knows several")
    parser.add_argument("--beam", type=int, default=5, help="width of the search")


def _translate(args: argparse.Namespace) -> None:
    from .evaluation.decode import Decoding
    from .experiments.translate import direction_of, newest_run, translate

    run = newest_run(args.folder)
    translate(run, direction_of(run, args.source), Decoding(args.beam))


def _gpus() -> Optional[int]:
    """NUM_GPUS; None where it is not set."""
    value = os.environ.get("NUM_GPUS")
    if not value:
        return None
    if not value.isdigit():
        raise UserError(f"NUM_GPUS is {value!r}: it must be a number of GPUs, 0 for the CPU")
    return int(value)


def _data_folder(root: Path, corpus: str, recipe: str, smoke: bool) -> Path:
    return root / corpus / f"data-{recipe}{'-smoke' if smoke else ''}"


def main(argv: Optional[List[str]] = None) -> int:
    args = build_parser().parse_args(argv)
    # before fairseq is imported, which would show every library's debugging messages
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        args.run(args)
    except UserError as error:
        print(f"labo-fairseq {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"labo-fairseq {args.command}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0
