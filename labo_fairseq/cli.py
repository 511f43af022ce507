"""``labo-fairseq``: corpora, trainings and scores around fairseq's own commands."""

import argparse
import logging
import os
import platform
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from . import __version__
from .cli_types import BEAM, NEWEST_HELP, PROCESSES, RUNS, SEED, Help, Parser, finite, length_penalty, whole
from .errors import UserError, told
from .files import image_methods, make_folder, methods, shipped_corpora, shipped_datasets
from .images import is_dataset

if TYPE_CHECKING:
    from .analysis.base import Analysis
    from .data.corpora.declaration import Declaration

# Everything else is imported by the command that needs it: ``labo-fairseq user-dir`` must not wait for torch.

_DATA_HELP = "directory with archives that you already have (default: LABO_DATA)"
_METRIC_HELP = "such as bleu, chrf++, ter, tokenized or comet; an unknown name shows all"
_OUT_HELP = "output directory (default: 'analysis' in the directory of the last run)"
_SPLITS = ("train", "valid", "test")
#: options of ``custom`` alone
_CUSTOM = (*_SPLITS, "validation_every", "bpe_operations", "lowercase", "clean")
_CORPUS_HELP = f"one of {', '.join(shipped_corpora())}; a YAML file that declares a corpus; or custom"


class _Versions(argparse.Action):
    """Prints what a bug report must name: the versions of this package, of Python and of what results depend on."""

    PACKAGES = ("torch", "fairseq", "fairseq-fixed", "hydra-core", "omegaconf", "numpy", "sacrebleu", "transformers")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .experiments.run_directory import package_versions

        versions = {"labo-fairseq": __version__, "Python": platform.python_version(), **package_versions(self.PACKAGES)}
        parser.exit(0, "".join(f"{name} {version}\n" for name, version in versions.items()))


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="labo-fairseq",
        description="Prepare corpora, train with LABO or a baseline, and score, compare and analyze the results. In "
        "your own training:\n\nfairseq-train DATA --user-dir $(labo-fairseq user-dir) --criterion labo ...",
        formatter_class=Help,
    )
    parser.add_argument("--version", action=_Versions, nargs=0, help="print the versions that a bug report needs")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_user_dir,
        _add_prepare,
        _add_run,
        _add_experiment,
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
        formatter_class=Help,
    )
    parser.set_defaults(run=run)
    return parser


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    of_text, of_images = set(methods()), set(image_methods())
    parser.add_argument(
        "--criterion",
        default="labo",
        choices=sorted(of_text | of_images),
        help=f"training method; of images alone {', '.join(sorted(of_images - of_text))}; "
        f"of text alone {', '.join(sorted(of_text - of_images))}",
    )
    parser.add_argument("--seed", type=SEED, default=1, help="random seed (initialization, dropout, batch order)")
    parser.add_argument(
        "--smoke", action="store_true", help="smoke test in minutes on a CPU: tiny model, meaningless scores"
    )
    parser.add_argument("--fresh", action="store_true", help="start the training over instead of resuming it")
    parser.add_argument(
        "settings",
        nargs="*",
        default=[],  # without it, argparse calls them required
        metavar="KEY=VALUE",
        help="more settings, e.g. criterion.tau=1.15 optimization.lr=[0.001]",
    )


def _add_user_dir(commands) -> None:
    _command(commands, "user-dir", _user_dir, "print the directory that fairseq-train --user-dir takes")


def _user_dir(args: argparse.Namespace) -> None:
    print(Path(__file__).resolve().parent)


def _add_corpus_arguments(parser: argparse.ArgumentParser, images: bool = False) -> None:
    corpus, direction = _CORPUS_HELP, "such as de-en or pt_br-en; 'multilingual' for one model of several directions"
    if images:
        corpus += f". Or images: one of {', '.join(shipped_datasets())}; or a YAML file that declares them"
        direction += ". For images: the network, such as resnet18, or MODULE:FUNCTION"
    parser.add_argument("corpus", help=corpus)
    parser.add_argument("direction", help=direction)
    parser.add_argument("--archive-dir", type=Path, metavar="DIR", help=_DATA_HELP)
    parser.add_argument(
        "--workers", type=PROCESSES, default=os.cpu_count() or 1, metavar="N", help="processes that prepare the corpus"
    )
    own = parser.add_argument_group(
        "custom",
        "your own files: two of one sentence per line, source language first, or one with both languages (TSV with the "
        "source first, TMX, zip archive of OPUS); plain, .gz, .xz or .bz2. An option may stand several times: training "
        "and validation files are joined, test sets stay apart",
    )
    for split in _SPLITS:
        own.add_argument(
            f"--{split}", type=Path, nargs="+", action="append", metavar="FILE", help=f"files of the {split} set"
        )
    own.add_argument(
        "--validation-every", type=whole(2), metavar="N", help="instead of --valid: every Nth training pair"
    )
    own.add_argument(
        "--bpe-operations",
        type=whole(1),
        metavar="N",
        help="BPE merge operations, or SentencePiece units (default: by the size of the corpus)",
    )
    own.add_argument("--lowercase", action="store_true", help="lower-case all text")
    own.add_argument(
        "--clean",
        nargs=3,
        type=finite,
        metavar=("RATIO", "MIN", "MAX"),
        help="drop training pairs whose length ratio exceeds RATIO, or with a side outside MIN-MAX tokens",
    )


def _declare_custom(args: argparse.Namespace) -> Optional[Dict[str, Any]]:
    """What a corpus file would say about the files on the command line; None where a corpus is named."""
    from .experiments.custom import NAME, declare

    useless = ("archive_dir",) if args.corpus == NAME else _CUSTOM
    for name in useless:
        if getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} does not go with {args.corpus}: leave it out")
    if args.corpus != NAME:
        return None
    files = {split: getattr(args, split) or [] for split in _SPLITS}
    options = (args.bpe_operations, args.lowercase, args.clean, args.validation_every)
    return declare(args.direction, files, *options)


def _find_corpus(args: argparse.Namespace, custom: Optional[Dict[str, Any]]) -> "Declaration":
    from .data.archives import archive_folder
    from .data.corpora.declaration import load_declaration
    from .experiments.custom import parse_custom

    if custom is None:
        return load_declaration(args.corpus, archive_folder(args.archive_dir))
    return parse_custom(custom)


def _add_prepare(commands) -> None:
    parser = _command(
        commands,
        "prepare",
        _prepare,
        "prepare a corpus: fetch, tokenize, clean, learn and apply subwords, binarize",
        "Prepare a corpus by its name, by a YAML file that declares it, or 'custom': your own files. Both directions "
        "of a language pair share the result.",
    )
    parser.add_argument("--destdir", type=Path, metavar="DIR", help="output directory (default: below runs/CORPUS)")
    parser.add_argument("--smoke", action="store_true", help="the first 2000 pairs only")
    _add_corpus_arguments(parser)


def _prepare(args: argparse.Namespace) -> None:
    from .experiments.recipes import prepare_corpus, setup_of

    setup = setup_of(_find_corpus(args, _declare_custom(args)), args.direction, args.archive_dir, args.smoke)
    folder = args.destdir or setup.data_folder(RUNS, args.smoke)
    data = prepare_corpus(setup, folder, args.workers, args.archive_dir, args.smoke)
    for split, number in data.pairs.items():
        print(f"{split:<20}{number:>12,} pairs")
    print(f"{'fairseq-train DATA':<20}{data.binarized}")


def _add_run(commands) -> None:
    parser = _command(
        commands,
        "run",
        _run,
        "prepare a corpus, train on it, translate its test sets and score them; or train on images and classify",
        "Prepare a corpus, train with the settings that it declares (those of 'custom' are chosen by its size), "
        "translate the test sets, score them. Steps whose output is complete are skipped; an interrupted run resumes. "
        "NUM_GPUS says how many GPUs to use (default: all), and where that is none, NUM_CPU_WORKERS how many processes "
        "(default: 1); the batch of an update does not depend on them.",
    )
    parser.add_argument(
        "--folder", type=Path, default=RUNS, metavar="DIR", help="output directory of all corpora and runs"
    )
    parser.add_argument("--name", help="name of the run directory (default: CRITERION-seedN)")
    _add_corpus_arguments(parser, images=True)
    nodes = parser.add_argument_group("several nodes", "that share a file system; the same command on each of them")
    nodes.add_argument("--nodes", type=PROCESSES, default=1, metavar="N", help="how many there are")
    nodes.add_argument("--node", type=whole(0), default=0, metavar="K", help="number of this node, from 0")
    nodes.add_argument("--master", default="", metavar="HOST:PORT", help="where node 0 listens for the others")
    _add_training_options(parser)


def _run(args: argparse.Namespace) -> None:
    from .experiments.config import for_machines, with_teachers
    from .experiments.custom import write_corpus_file
    from .experiments.machines import machines_here
    from .experiments.recipes import build_run, check_settings, prepare_corpus, run_config, setup_of
    from .experiments.run import complete, join
    from .experiments.sizing import is_open
    from .experiments.summary import summarize

    if is_dataset(args.corpus):
        _run_images(args)
        return
    machines = machines_here(nodes=args.nodes, node=args.node, master=args.master)
    custom = _declare_custom(args)
    corpus = _find_corpus(args, custom)
    # where the size of the text chooses, a mistake is told before it is read, which may take minutes
    if is_open(corpus):
        check_settings(corpus, args.direction, args.criterion, args.seed, args.settings, args.smoke)
    setup = setup_of(corpus, args.direction, args.archive_dir, args.smoke)
    name = args.name or f"{args.criterion}-seed{args.seed}{'-smoke' if args.smoke else ''}"
    folder = setup.run_folder(args.folder, name)
    # what is wrong with the settings or the machine is said before the corpus is prepared
    config = run_config(setup, args.criterion, args.seed, args.settings, args.smoke)
    config = with_teachers(config, folder)
    for_machines(config, machines)
    setup.corpus.scoring.check(target for _, target in setup.directions)
    data_folder = setup.data_folder(args.folder, args.smoke)
    data = prepare_corpus(setup, data_folder, args.workers, args.archive_dir, args.smoke)
    if custom is not None:
        corpus_file = data_folder.with_suffix(".yaml")
        write_corpus_file(custom, setup, corpus_file)
        print(f"corpus file, for grids and changes: {corpus_file}", file=sys.stderr)
    run = build_run(setup, config, data, folder)
    if machines.node:
        join(run, machines)
        print(f"node {machines.node} has trained: node 0 translates and scores")
    else:
        summarize(run, complete(run, machines, args.fresh))


def _run_images(args: argparse.Namespace) -> None:
    from .experiments.image_run import run_images, summarize_images
    from .experiments.machines import machines_here
    from .experiments.run_directory import run_folder

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("leave torchrun out: NUM_GPUS or NUM_CPU_WORKERS says how many processes are started")
    given = {**{option: getattr(args, option) for option in _CUSTOM}, "nodes": args.nodes > 1, "master": args.master}
    for option, value in given.items():
        if value:
            raise UserError(f"--{option.replace('_', '-')} does not go with images: leave it out")
    name = args.name or f"{args.criterion}-seed{args.seed}{'-smoke' if args.smoke else ''}"
    folder = run_folder(args.folder, Path(args.corpus).stem, args.direction.replace(":", "."), name)
    run, result = run_images(
        folder,
        args.corpus,
        args.direction,
        args.criterion,
        args.seed,
        args.settings,
        args.smoke,
        args.fresh,
        args.archive_dir,
        machines_here(),
    )
    summarize_images(run, result)


def _add_experiment(commands) -> None:
    parser = commands.add_parser(
        "experiment",
        help="run a grid (corpora, methods, settings, seeds), or report on its results",
        description="A grid is a YAML file of corpora, directions, methods, settings and seeds; every combination is "
        "one run. 'experiment GRID' is short for 'experiment run GRID'.",
        formatter_class=Help,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    run = _command(
        actions,
        "run",
        _experiment_run,
        "run or resume every experiment of a grid",
        "Run or resume every experiment of a grid, each as 'labo-fairseq run' would. A complete run is not repeated, "
        "an interrupted run resumes, a failed run is reported and does not stop the others.",
    )
    report = _command(
        actions,
        "report",
        _experiment_report,
        "write tables and figures of the finished runs of a grid",
        "Write tables (Markdown, CSV, JSON) and figures of the finished runs of a grid, and print the table.",
    )
    for action in (run, report):
        action.add_argument("grid", help="a YAML file, or the name of one in configs/experiments, such as multi30k")
        action.add_argument("--folder", type=Path, default=RUNS, metavar="DIR", help="directory that holds the runs")
    run.add_argument(
        "--smoke", action="store_true", help="smoke test in minutes on a CPU: tiny models, meaningless scores"
    )
    report.add_argument(
        "--smoke", action="store_true", help="report the smoke runs, into a directory GRID-smoke of their own"
    )
    run.add_argument("--jobs", type=PROCESSES, metavar="N", help="number of parallel runs (default: one per GPU, or 1)")
    run.add_argument("--gpus-per-run", type=PROCESSES, default=1, metavar="N", help="number of GPUs that share a run")
    run.add_argument("--dry-run", action="store_true", help="print the plan and an estimate of its cost, and stop")
    run.add_argument("--only", type=whole(0), metavar="N", help="run only entry N of the plan")
    run.add_argument("--slurm", action="store_true", help="print a script that submits the plan to SLURM, and stop")
    report.add_argument(
        "--metric", default="", help=f"score to report (default: BLEU; for images, accuracy), {_METRIC_HELP}"
    )
    report.add_argument(
        "--out", type=Path, metavar="DIR", help="output directory (default: experiments/GRID below --folder)"
    )


def _experiment_report(args: argparse.Namespace) -> None:
    from .experiments.grid import load_grid
    from .experiments.results import write_report

    grid = load_grid(args.grid, args.smoke)
    paths = write_report(grid, args.folder, args.out or args.folder / "experiments" / grid.name, args.metric)
    print(paths[0].read_text(encoding="utf-8"))
    print("\n".join(map(str, paths)))


def _experiment_run(args: argparse.Namespace) -> None:
    from .experiments.grid import load_grid
    from .experiments.scheduler import Schedule, find_workers, only, report_command, show_plan, slurm_script

    if args.slurm and args.only is not None:
        raise UserError("--slurm submits the whole plan, --only makes one run of it: give one of them")
    grid = load_grid(args.grid, args.smoke)
    if args.slurm:
        print(slurm_script(grid, args.grid, args.folder, args.gpus_per_run, args.smoke), end="")
        return
    chosen = grid if args.only is None else only(grid, args.only)
    workers = find_workers(args.jobs, args.gpus_per_run)
    show_plan(chosen, args.folder, workers)
    if args.dry_run:
        return
    make_folder(args.folder)
    schedule = Schedule(chosen, args.folder, workers)
    failed = schedule.complete()
    if failed:
        logs = schedule.log(next(iter(failed))).parent
        raise UserError(f"{len(failed)} of {len(chosen.jobs)} runs failed; their logs lie in {logs}")
    print(f"Complete. The tables:  {report_command(args.grid, args.folder, args.smoke)}")


def _add_config(commands) -> None:
    parser = _command(
        commands,
        "config",
        _config,
        "print one complete configuration for fairseq-hydra-train",
        "Print the configuration that configs/ composes, fitted to a number of workers: for torchrun, SLURM or editing "
        "by hand. Save it as DIR/training.yaml and start  fairseq-hydra-train --config-dir DIR --config-name training",
    )
    parser.add_argument("name", help="CORPUS_DIRECTION_METHOD, such as wmt14_en-de_labo")
    parser.add_argument(
        "settings", nargs="*", default=[], metavar="KEY=VALUE", help="more settings, e.g. criterion.tau=1.15"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="directory that 'labo-fairseq prepare' made or printed"
    )
    parser.add_argument("--save-dir", type=Path, required=True, metavar="DIR", help="directory for the checkpoints")
    parser.add_argument(
        "--distributed-world-size", type=PROCESSES, default=1, metavar="N", help="processes on all nodes together"
    )
    parser.add_argument(
        "--precision", default="fp32", choices=["fp32", "fp16", "bf16"], help="numeric precision of the training"
    )


def _config(args: argparse.Namespace) -> None:
    from .data.prepared_corpus import find_prepared
    from .experiments.config import for_workers, to_yaml, with_paths, with_teachers
    from .experiments.recipes import compose

    composed = with_teachers(compose(args.name, args.settings), args.save_dir.parent)
    config = for_workers(composed, args.distributed_world_size)
    if args.precision != "fp32":
        config["common"][args.precision] = True
    print(to_yaml(with_paths(config, find_prepared(args.data), args.save_dir)), end="")


def _add_evaluate(commands) -> None:
    parser = _command(
        commands,
        "evaluate",
        _evaluate,
        "score a finished run with another checkpoint, an average of them, another search, or on another test set",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="directory of the run")
    _add_decoding_options(parser)
    parser.add_argument("--metrics", nargs="+", default=[], metavar="METRIC", help=f"more scores: {_METRIC_HELP}")
    parser.add_argument(
        "--test",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="another test set instead: the files of source and reference, or one with both, as for 'run custom'",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _add_decoding_options(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--checkpoint", choices=["best", "last"], help="checkpoint to use (default: the one that the run has scored)"
    )
    which.add_argument("--average", type=whole(1), metavar="N", help="use the mean of the N newest checkpoints instead")
    parser.add_argument("--beam", type=BEAM, default=5, metavar="N", help="beam size")
    parser.add_argument(
        "--lenpen", type=length_penalty, default=1.0, help="length penalty: above 1 favors longer translations"
    )
    parser.add_argument(
        "--posterior", action="store_true", help="search with calibrated probabilities in place of the predictions"
    )


def _evaluate(args: argparse.Namespace) -> None:
    import json

    from .evaluation.evaluate import evaluate_again
    from .evaluation.generate import Decoding
    from .evaluation.runs import load_run
    from .experiments.custom import read_test
    from .experiments.summary import show_scores

    run = load_run(args.folder)
    test = read_test(args.test, run.directions) if args.test else None
    decoding = Decoding(args.beam, args.lenpen, args.posterior)
    evaluation = evaluate_again(run, args.checkpoint, args.average, decoding, args.metrics, test)
    if args.json:
        print(json.dumps(evaluation.to_json(), indent=2))
    else:
        show_scores(evaluation)


def _add_compare(commands) -> None:
    parser = _command(
        commands,
        "compare",
        _compare,
        "compare finished runs on the same test set with paired bootstrap resampling",
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="RUN", help="directories of the runs, the baseline first"
    )
    parser.add_argument(
        "--test",
        nargs="+",
        default=[],
        metavar="TEST",
        help="name of the test set (default: the main one), or the files of another one, as for 'evaluate'",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="METRIC",
        help=f"instead of BLEU and chrF (for images, accuracy and NLL): {_METRIC_HELP}",
    )
    parser.add_argument("--samples", type=whole(1, 1_000_000), default=1000, metavar="N", help="bootstrap samples")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _compare(args: argparse.Namespace) -> None:
    import json

    from .evaluation.significance import render
    from .experiments.kinds import kind_of

    compared = kind_of(args.folders).compare(args.folders, args.test, args.metrics, args.samples)
    print(json.dumps([line.to_json() for line in compared], indent=2) if args.json else render(compared))


def _add_analyse(commands) -> None:
    parser = commands.add_parser(
        "analyse",
        help="what distinguishes finished runs beyond their scores, including the analyses of section 5 of the paper",
        description="What distinguishes finished runs beyond their scores. Each analysis prints tables and writes "
        "Markdown, CSV, JSON and PNG.",
    )
    # the analyses are found, and their libraries imported, only where the command is called
    parser.fill = _add_analyses


def _add_analyses(parser: argparse.ArgumentParser) -> None:
    from .analysis import analyses

    commands = parser.add_subparsers(dest="analysis", required=True, metavar="ANALYSIS")
    for name, analysis in analyses().items():
        subcommand = _command(commands, name, partial(_analyse, analysis), analysis.summary, analysis.description)
        analysis.add_arguments(subcommand)
        subcommand.add_argument("--out", type=Path, metavar="DIR", help=_OUT_HELP)


def _analyse(analysis: "Analysis", args: argparse.Namespace) -> None:
    from .analysis.base import publish, workplace

    runs, options = analysis.runs(args), analysis.options(args)
    with workplace(runs, args.out) as folder:
        publish(analysis.run(runs, folder, **options), folder)


def _add_report(commands) -> None:
    parser = _command(
        commands,
        "report",
        _report,
        "one self-contained page on finished runs: curves, scores, cost, analyses",
        "Write report.html: training curves, α and entropy over time, scores with their signatures, cost, settings, "
        "and all analyses. It is one file that opens without a network, in any browser, light or dark. The "
        "files of the analyses are written beside it.",
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="RUN", help="directories of the runs, the baseline first"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help=_OUT_HELP)


def _report(args: argparse.Namespace) -> None:
    from .experiments.kinds import kind_of

    path, tables = kind_of(args.folders).report(args.folders, args.out)
    print(f"{'report':<10}{path}")
    if tables:
        print("\n\n".join(table.text() for table in tables))


def _add_translate(commands) -> None:
    parser = _command(
        commands,
        "translate",
        _translate,
        "translate lines from standard input with a trained run",
        "Translate standard input, line by line, with a finished run.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=RUNS, help=NEWEST_HELP)
    parser.add_argument("--source", default="", metavar="LANG", help="source language, if the run has several")
    _add_decoding_options(parser)


def _translate(args: argparse.Namespace) -> None:
    from .evaluation.evaluate import find_checkpoint
    from .evaluation.generate import Decoding
    from .evaluation.runs import direction_of, newest_run
    from .experiments.translate import translate

    run = newest_run(args.folder)
    direction = direction_of(run, args.source)
    checkpoint = find_checkpoint(run, args.checkpoint, args.average)
    translate(run, checkpoint, direction, Decoding(args.beam, args.lenpen, args.posterior))


def _parse(argv: Optional[List[str]]) -> argparse.Namespace:
    parser = build_parser()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["experiment"] and words[1:] and words[1] not in ("run", "report", "-h", "--help"):
        words.insert(1, "run")
    args, rest = parser.parse_known_args(words)
    _return_settings(args)
    # argparse takes KEY=VALUE beside the other positional arguments alone, not behind an option
    if rest and hasattr(args, "settings") and not any(word.startswith("-") for word in rest):
        args.settings = [*args.settings, *rest]
    elif rest:
        command = f"{parser.prog} {args.command}"
        has_settings = hasattr(args, "settings")
        instead = "; the settings of a training are KEY=VALUE, e.g. criterion.tau=1.15" if has_settings else ""
        parser.exit(2, f"{command}: unrecognized arguments: {' '.join(rest)}{instead} ({command} --help)\n")
    _refuse_repeated(parser, args)
    return args


def _return_settings(args: argparse.Namespace) -> None:
    """Give back the KEY=VALUE words that an option with several files took for files."""
    for split in _SPLITS if hasattr(args, "settings") else ():
        for paths in getattr(args, split, None) or []:
            while len(paths) > 1 and re.match(r"[\w.]+=", str(paths[-1])) and not paths[-1].exists():
                args.settings = [str(paths.pop()), *args.settings]


def _refuse_repeated(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End where one of the KEY=VALUE settings would replace another one, or an option."""
    keys = [setting.partition("=")[0] for setting in getattr(args, "settings", [])]
    for key in keys:
        if keys.count(key) > 1:
            parser.error(f"{key} is set twice, and only one value can be used")
    if "common.seed" in keys and hasattr(args, "seed"):
        parser.error("common.seed is set with --seed, which names the run's folder too")


def main(argv: Optional[List[str]] = None) -> int:
    # before fairseq is imported, which would show every library's debugging messages
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    args = _parse(argv)
    try:
        args.run(args)
        return 0
    except (UserError, OSError) as error:
        line = told(error)
        if line is None:
            raise
        status, message = 1, line
    except KeyboardInterrupt:
        status, message = 130, "interrupted; re-run the same command to resume"
    # only now is the error gone, and with it the progress bars of what it ended
    print(f"labo-fairseq {args.command}: {message}", file=sys.stderr)
    return status
