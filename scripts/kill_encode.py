"""Kill `vqtok encode` with SIGKILL again and again; the dataset must come out byte-identical.

    python scripts/kill_encode.py photos/ kills/ --kills 50

An undisturbed run makes the reference. Then, for each way to run (one process, ``--processes 2``,
three processes that share the job, Ray, and the merge alone), the command is started, a random one
of its processes is killed after a random time, and the command is started again where the killed
process was the command itself; until ``--kills`` have hit a living process. A last run is left
alone. Every file is then compared with the reference.

``merge`` kills the last of two sharing processes at the first, second, ... thing that it does to
files from the moment on at which it begins to write the manifest.

Commands are forks of this process, which has imported everything, so that kills hit their work.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of OpenMP do not survive a fork

import psutil

import vqtok.cli
import vqtok.pipeline
import vqtok.tokenizer
from vqtok.cli import exit_code

WAYS = ("one", "processes", "shares", "ray", "merge")


class Command:
    """`vqtok` with arguments, in a fork; ``before`` runs there first."""

    def __init__(self, arguments: list[str], before: Callable[[], object] = lambda: None) -> None:
        self.arguments, self.code = arguments, None
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 70
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(self.errors.fileno(), 2)
            before()
            code = vqtok.cli.main(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def poll(self, block: bool = False) -> int | None:
        """Its exit code, the number of a signal below 0, None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, 0 if block else os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self) -> int:
        """Its exit code; leaves the program if it is no way for `vqtok encode` to end."""
        code = self.poll(block=True)
        assert code is not None
        if code not in (0, 1, -signal.SIGKILL):
            self.errors.seek(0)
            sys.exit(f"vqtok {self.arguments} ended with {code}: {self.errors.read()!r}")
        return code


class Job:
    """One or several commands that work on the same dataset."""

    def __init__(self, commands: list[list[str]]) -> None:
        self.commands = commands
        self.running = [Command(command) for command in commands]

    def victims(self) -> tuple[list[psutil.Process], list[psutil.Process]]:
        """The commands, and what they started to encode: child processes, Ray's actors."""
        commands, children = [], []
        for running in self.running:
            if running.poll() is None:
                command = psutil.Process(running.pid)
                commands.append(command)
                with suppress(psutil.Error):
                    children += filter(encodes, command.children(recursive=True))
        return commands, children

    def kill_one(self, delays: random.Random) -> bool:
        """Kill one that is alive; whether there was any."""
        commands, children = self.victims()
        victims = children if children and delays.random() < 0.7 else commands + children
        if not victims:
            return False
        with suppress(psutil.NoSuchProcess):
            delays.choice(victims).send_signal(signal.SIGKILL)
            return True
        return False

    def restart(self) -> None:
        """Start again the commands that were killed."""
        for i, command in enumerate(self.running):
            if command.poll() == -signal.SIGKILL:
                self.running[i] = Command(self.commands[i])

    def done(self) -> bool:
        return all(command.poll() not in (None, -signal.SIGKILL) for command in self.running)

    def wait(self) -> None:
        for command in self.running:
            command.wait()


def encodes(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        name = " ".join(process.cmdline())
        return "spawn_main" in name or "ray::_Actor" in name
    return False


def kill_again_and_again(
    commands: list[list[str]], out: Path, kills: int, longest: float, seed: int
) -> tuple[int, int]:
    """Kills, and the number of times that the dataset was finished and begun anew."""
    delays, done, fresh = random.Random(seed), 0, 0
    job = Job(commands)
    while done < kills:
        end = time.monotonic() + delays.uniform(0, longest)
        while time.monotonic() < end and not job.done():
            time.sleep(0.005)
        if job.done():  # before it could be killed: once more from the start
            job.wait()
            shutil.rmtree(out, ignore_errors=True)
            fresh += 1
            job = Job(commands)
            continue
        done += job.kill_one(delays)
        time.sleep(0.005)
        job.restart()
    job.wait()
    while any(command.poll() == -signal.SIGKILL for command in job.running):
        job.restart()
        job.wait()
    Job(commands).wait()
    return done, fresh


def kill_merges(encode: list[str], out: Path, kills: int, reference: dict[str, bytes]) -> int:
    """The last of two processes dies at a later and later step of its merge, and again from the
    first when it came through; how often it did.
    """
    killed = 0
    steps = itertools.count()
    while killed < kills:
        shutil.rmtree(out, ignore_errors=True)
        Command([*encode, "--share", "1/2"]).wait()
        limit = next(steps)
        last = [*encode, "--share", "0/2"]
        died = Command(last, lambda limit=limit: die_in_merge(str(out), limit)).wait()
        if died == -signal.SIGKILL:
            killed += 1
        else:
            steps = itertools.count()
        Command(last).wait()
        compare(contents(out), reference)
    return killed


def die_in_merge(out: str, limit: int) -> None:
    """SIGKILL for this process after ``limit`` things done to files in its merge."""
    seen = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open" or (event.startswith(("os.", "shutil.")) and event != "os.kill"):
            text = " ".join(map(str, arguments))
            begins = out in text and any(n in text for n in ("errors.jsonl", "manifest.json.tmp"))
            if seen or begins:
                seen += 1
                if seen > limit:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def compare(found: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    if found != wanted:
        names = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
        sys.exit(f"DIFFERENT: {names}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="photos or sounds, a few dozen")
    parser.add_argument("out", type=Path, help="a folder to work in")
    parser.add_argument("--kills", type=int, default=50, help="of each way to run")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--shard-size", type=int, default=2)
    parser.add_argument("--longest", type=float, help="seconds before a kill (that of a whole run)")
    args = parser.parse_args()
    source = os.path.abspath(args.source)
    options = ["--shard-size", str(args.shard_size), "--num-codebooks", "2"]
    shutil.rmtree(args.out, ignore_errors=True)
    started = time.monotonic()
    Command(["encode", source, str(args.out / "reference"), *options]).wait()
    whole = time.monotonic() - started
    reference = contents(args.out / "reference")
    size = sum(map(len, reference.values()))
    print(f"{len(reference)} files, {size:,} bytes, {whole:.1f} s", flush=True)
    for seed, way in enumerate(args.ways):
        out = args.out / way
        encode = ["encode", source, str(out), *options]
        if way == "merge":
            kills = kill_merges(encode, out, args.kills, reference)
            print(f"merge: {kills} kills, identical", flush=True)
            continue
        commands = {
            "one": [encode],
            "processes": [[*encode, "--processes", "2"]],
            "shares": [[*encode, "--share", f"{rank}/3"] for rank in range(3)],
            "ray": [[*encode, "--engine", "ray", "--processes", "2"]],
        }[way]
        # What starts processes needs longer to come to its work.
        longest = args.longest or whole + {"processes": 5, "ray": 12}.get(way, 0)
        kills, fresh = kill_again_and_again(commands, out, args.kills, longest, seed)
        compare(contents(out), reference)
        print(f"{way}: {kills} kills, identical ({fresh} times finished between)", flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
