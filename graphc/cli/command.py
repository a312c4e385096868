"""Arguments and exit codes of the command ``graphc``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from graphc import config
from graphc.cli.dump import DEFAULT_STAGES, EVERY_PASS, UsageError, dump
from graphc.cli.info import cache_command, info, version
from graphc.cli.profile import profile_command
from graphc.cli.stages import STAGES
from graphc.codegen.cpu import HOST
from graphc.codegen.targets import target_names
from graphc.errors import GraphcError

OK, USER_ERROR, USAGE_ERROR = 0, 1, 2

_EXAMPLES = """\
examples:
  graphc dump lenet.py:net --shape 'x=f32[64,1,28,28]'
      fusion groups and memory plan of a Block, a Symbol, a function or a compiled one
  graphc dump lenet.py:net --shape 'x=f32[64,1,28,28]' --stage grad,fuse,plan,kernel --bind B=100
      the gradient graph through the stages, memory planned for 100 rows
  graphc dump step.graph --stage source --kernel conv
      the Python text of the kernels whose name has "conv"
  graphc dump lenet.py:net --diff            what each pass changed
  graphc dump lenet.py:net --stage fuse --dot | dot -Tsvg > lenet.svg
  graphc profile train.py:step               time, rate and share of the limit of each launch
  graphc info                                versions, processor, cache
  graphc cache clear                         remove all that was compiled

Without --shape the file defines example_inputs(): see graphc dump --help.
exit status: 0 done, 1 the model or file has a fault, 2 wrong usage of the command
"""
_DUMP_EXAMPLES = """\
The target is file.py:object or a graph file (file.graph, as `--stage trace --output` writes it).
The object is a Block, a function of arrays, a compiled one, a function that makes a Block, or a
Symbol. The shapes to trace with come from --shape, or from example_inputs (a function, or arrays;
for a Symbol also a dict) in the file or on the object; a Symbol's parameters get theirs from these.
Nothing is run: the model is traced only. Later stages show the gradient graph where grad is listed.

examples:
  graphc dump mlp.py:net --shape 'x=f32[64,784]' --stage trace,canonical,fuse
  graphc dump mlp.py:net --stage grad,plan --bind B=100
  graphc dump mlp.py:symbol --shape 'data=f32[64,784]'
  graphc dump mlp.py:net --stage kernel,source,llvm,asm --kernel k0 --output listing
  graphc dump mlp.py:net --stage kernel,ptx --target cuda:sm_90
  graphc dump mlp.py:net --diff trace,canonical
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those that the process was started with.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except UsageError as error:
        print(f"graphc: {error}", file=sys.stderr)
        return USAGE_ERROR
    except GraphcError as error:
        print(f"graphc: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # `graphc dump ... | head`: the reader has enough; stop Python's own complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all sub-commands."""
    parser = argparse.ArgumentParser(
        prog="graphc",
        description="Look inside a model's compilation, and at what graphc found and keeps.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"graphc {version('graphc')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_dump(commands)
    _add_profile(commands)
    shown = commands.add_parser("info", help="versions, processor, threads, cache, GPU")
    shown.set_defaults(run=lambda options: print(info(), end=""))
    kept = commands.add_parser("cache", help="list, size or clear compiled kernels and programs")
    kept.add_argument("action", choices=("list", "size", "clear"))
    kept.set_defaults(run=lambda options: print(cache_command(options.action), end=""))
    return parser


def _add_dump(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "dump",
        help="print a model after each stage of its compilation",
        description="Print a model after each stage of its compilation.",
        epilog=_DUMP_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", help="file.py:object or file.graph")
    parser.add_argument(
        "--stage",
        default=DEFAULT_STAGES,
        metavar="STAGES",
        help=f"which stages, of {', '.join(STAGES)}; or all (default: {DEFAULT_STAGES})",
    )
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=DTYPE[SIZES]",
        help="type of an argument, x=f32[64,1,28,28]; can be repeated",
    )
    parser.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="SIZE=NUMBER",
        help="a size for the memory plan, B=64; can be repeated",
    )
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="TEXT",
        help="only the kernels called TEXT, or with TEXT in their name; can be repeated",
    )
    parser.add_argument(
        "--diff",
        nargs="?",
        const=EVERY_PASS,
        metavar="STAGE1,STAGE2",
        help="show what changed between two stages; alone, what each graph pass changed",
    )
    parser.add_argument(
        "--target",
        dest="processor",
        default=HOST,
        metavar="NAME",
        help="compile for this machine (host), for a nominal processor of that level, or for CUDA: "
        f"{', '.join(target_names())}",
    )
    parser.add_argument(
        "--engine",
        choices=config.CHOICES["engine"],
        default=config.current().engine,
        help="what makes machine code of kernels (default: %(default)s)",
    )
    parser.add_argument(
        "--grad",
        action="store_true",
        help="stages behind grad show the gradient graph, also where grad is not listed",
    )
    parser.add_argument("--dot", action="store_true", help="graph stages as Graphviz DOT text")
    parser.add_argument("--train", action="store_true", help="trace in training mode")
    parser.add_argument("--output", metavar="DIR", help="write one file for each stage")
    parser.set_defaults(run=dump)


def _add_profile(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "profile",
        help="run a model and print time, rate and share of the limit of each launch",
        description="Run a Block, a TrainStep, a Symbol or a function, compiled, and print for "
        "each launch its median time, its share of the whole, the rates at which it computes and "
        "moves data (operands and results counted once), and what share that is of the limit of "
        "this machine, which is measured first.",
    )
    parser.add_argument("target", metavar="TARGET", help="file.py:object, as of graphc dump")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=DTYPE[SIZES]",
        help="type of an argument, which is zeros then; can be repeated",
    )
    parser.add_argument("--repeats", type=_positive, default=20, metavar="N", help="calls to time")
    parser.add_argument("--train", action="store_true", help="run in training mode")
    parser.add_argument("--no-limits", action="store_true", help="do not measure the machine")
    parser.add_argument("--trace", metavar="FILE", help="also write a trace for Perfetto")
    parser.set_defaults(run=profile_command)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)
