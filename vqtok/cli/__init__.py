"""The command line: one module per verb, imported for its arguments, heavy only when it runs.

A verb's module has ``HELP`` (one line), ``EXAMPLES``, ``add_arguments(parser)`` and
``run(args) -> int``, the exit code; and ``INTERRUPTED``, if there is something to say after Ctrl-C.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from types import ModuleType

from vqtok._version import __version__
from vqtok.cli.common import say
from vqtok.errors import UsageError, VqtokError
from vqtok.ops.native import isa

VERBS = {
    "encode": "vqtok.cli.encode",
    "decode": "vqtok.cli.decode",
    "verify": "vqtok.cli.verify",
    "inspect": "vqtok.cli.inspect",
    "export": "vqtok.cli.export",
    "convert": "vqtok.cli.convert",
    "bench": "vqtok.cli.bench",
    "train": "vqtok.cli.train",
    "import": "vqtok.cli.import_",
    "train-prior": "vqtok.cli.train_prior",
    "sample": "vqtok.cli.sample",
}

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

_DESCRIPTION = """\
Images and sounds to discrete token files and back.

Results go to standard output, progress and messages to standard error. Exit codes: 0 all is well,
1 something failed, 2 the command itself is wrong, 130 interrupted."""

_EXAMPLES = """\
examples:
  vqtok encode photos/ tokens/            photos to a token dataset
  vqtok decode tokens/ decoded/           and back
  vqtok inspect tokens/                   what it holds and what it costs
  vqtok verify tokens/                    is every byte still right?
  vqtok VERB --help                       more about a verb"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (argparse itself exits for --help and bad options)."""
    parser, verbs = _parser()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    args = parser.parse_args(arguments)
    verb = verbs[args.verb]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may be foreign to the locale
    return exit_code(partial(_run, verb, args), getattr(verb, "INTERRUPTED", ""))


def _run(verb: ModuleType, args: argparse.Namespace) -> int:
    if "VQTOK_ISA" in os.environ:
        isa()  # refused now, not in the middle of the work
    code: int = verb.run(args)
    return code


def exit_code(work: Callable[[], int | None], hint: str = "") -> int:
    """Do ``work``; returns its exit code (None is 0), or that of the way in which it failed.

    A wrong request, work that failed and Ctrl-C are a line on standard error, not a traceback;
    ``hint`` says what to do after Ctrl-C.
    """
    try:
        code = work() or 0
        sys.stdout.flush()
        return code
    except UsageError as error:
        return _fail(error, WRONG_USAGE)
    except BrokenPipeError:
        # Whoever read our output is gone; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (VqtokError, OSError) as error:
        return _fail(error, FAILED)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        say(f"interrupted{'; ' if hint else ''}{hint}")
        return INTERRUPTED


def _parser() -> tuple[argparse.ArgumentParser, dict[str, ModuleType]]:
    parser = argparse.ArgumentParser(
        prog="vqtok",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vqtok {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verbs = {name: import_module(module) for name, module in VERBS.items()}
    for name, verb in verbs.items():
        verb.add_arguments(
            subparsers.add_parser(
                name,
                help=verb.HELP,
                description=f"{verb.HELP[0].upper()}{verb.HELP[1:]}.",
                epilog=verb.EXAMPLES,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser, verbs


def _fail(error: Exception, code: int) -> int:
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        places = [str(name) for name in (error.filename, error.filename2) if name is not None]
        message = ": ".join([*places, error.strerror])
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message += "; free some space, then run the same command again"
    say(f"error: {message}")
    return code
