"""Kill `vqtok encode` with SIGKILL again and again; the dataset must come out byte-identical.

    python scripts/kill_encode.py photos/ kills/ --kills 50

An undisturbed run makes the reference. Then, for each way to run (one process, ``--processes 2``,
three processes that share the job, Ray, and the merge alone), the command is started, a random one
of its processes is killed after a random time, and the command is started again where the killed
process was the command itself; until ``--kills`` have hit a living process. A last run is left
alone. Every file is then compared with the reference.

``merge`` kills the last of two sharing processes at the first, second, ... thing that it does to
files from the moment on at which it begins to write the manifest.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

MERGE_THEN_DIE = """
import os, runpy, signal, sys
out, delay = sys.argv[1], int(sys.argv[2])
sys.argv[1:] = sys.argv[3:]
seen = 0
def watch(event, arguments):
    global seen
    if event in ("open", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.listdir"):
        text = " ".join(map(str, arguments))
        if seen or (out in text and any(n in text for n in ("errors.jsonl", "manifest.json.tmp"))):
            seen += 1
            if seen > delay:
                os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
runpy.run_module("vqtok", run_name="__main__", alter_sys=True)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def encodes(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        name = " ".join(process.cmdline())
        return "spawn_main" in name or "ray::_Actor" in name
    return False


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class Job:
    """One or several commands that work on the same dataset."""

    def __init__(self, commands: list[list[str]]) -> None:
        self.commands = commands
        self.running = [self._start(command) for command in commands]

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "vqtok", *command]
        return subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def victims(self) -> list[psutil.Process]:
        """The commands and what they started to encode: child processes, Ray's actors."""
        found = []
        for process in self.running:
            with suppress(psutil.Error):
                command = psutil.Process(process.pid)
                children = command.children(recursive=True)
                found += [command, *(child for child in children if encodes(child))]
        return [victim for victim in found if is_alive(victim)]

    def kill_one(self, delays: random.Random, prefer_children: bool) -> bool:
        """Kill one that is alive; whether there was any."""
        victims = self.victims()
        commands = {process.pid for process in self.running}
        children = [victim for victim in victims if victim.pid not in commands]
        if prefer_children and children and delays.random() < 0.7:
            victims = children
        if not victims:
            return False
        delays.choice(victims).send_signal(signal.SIGKILL)
        return True

    def restart(self) -> None:
        """Start again the commands that did not end well."""
        for i, process in enumerate(self.running):
            code = process.poll()
            if code is not None and code not in (0, 1):
                self.running[i] = self._start(self.commands[i])

    def done(self) -> bool:
        return all(process.poll() in (0, 1) for process in self.running)

    def wait(self) -> None:
        for process in self.running:
            _, errors = process.communicate()
            if process.returncode not in (0, 1):
                sys.exit(f"vqtok {process.args[3:]} ended with {process.returncode}: {errors!r}")


def kill_again_and_again(
    commands: list[list[str]], out: Path, kills: int, longest: float, seed: int
) -> tuple[int, int]:
    """Kills, and the number of times that the dataset was finished and begun anew."""
    delays, done, fresh = random.Random(seed), 0, 0
    job = Job(commands)
    while done < kills:
        end = time.monotonic() + delays.uniform(0, longest)
        while time.monotonic() < end and not job.done():
            time.sleep(0.02)
        if job.done():  # before it could be killed: once more from the start
            shutil.rmtree(out, ignore_errors=True)
            fresh += 1
            job = Job(commands)
            continue
        done += job.kill_one(delays, len(commands) == 1)
        time.sleep(0.02)
        job.restart()
    job.wait()
    last = Job(commands)
    last.wait()
    return done, fresh


def kill_merges(source: str, out: Path, options: list[str], kills: int) -> int:
    """The last of two processes dies at a later and later step of its merge; how often it did."""
    killed = 0
    for number in range(kills):
        shutil.rmtree(out, ignore_errors=True)
        encode = ["encode", source, str(out), *options]
        subprocess.run(
            [sys.executable, "-m", "vqtok", *encode, "--share", "1/2"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        program = [sys.executable, "-c", MERGE_THEN_DIE, str(out), str(number % 12)]
        died = subprocess.run(
            [*program, *encode, "--share", "0/2"], check=False, capture_output=True
        )
        if died.returncode not in (-9, 0, 1):
            sys.exit(died.stderr.decode())
        Job([[*encode, "--share", "0/2"]]).wait()
        compare(contents(out), REFERENCE)
        killed += died.returncode == -9
    return killed


REFERENCE: dict[str, bytes] = {}


def compare(found: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    if found != wanted:
        names = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
        sys.exit(f"DIFFERENT: {names}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="photos or sounds, a few dozen")
    parser.add_argument("out", type=Path, help="a folder to work in")
    parser.add_argument("--kills", type=int, default=50, help="of each way to run")
    parser.add_argument(
        "--ways",
        nargs="+",
        default=["one", "processes", "shares", "ray", "merge"],
        choices=["one", "processes", "shares", "ray", "merge"],
    )
    parser.add_argument("--shard-size", type=int, default=2)
    parser.add_argument("--longest", type=float, default=6.0, help="seconds before a kill")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    source = os.path.abspath(args.source)
    options = ["--shard-size", str(args.shard_size), "--num-codebooks", "2"]
    reference = args.out / "reference"
    shutil.rmtree(args.out, ignore_errors=True)
    Job([["encode", source, str(reference), *options]]).wait()
    REFERENCE.update(contents(reference))
    print(f"{len(REFERENCE)} files, {sum(map(len, REFERENCE.values())):,} bytes", flush=True)
    for seed, way in enumerate(args.ways):
        out = args.out / way
        encode = ["encode", source, str(out), *options]
        if way == "merge":
            kills = kill_merges(source, out, options, args.kills)
            print(f"merge: {kills} kills, identical", flush=True)
            continue
        commands = {
            "one": [encode],
            "processes": [[*encode, "--processes", "2"]],
            "shares": [[*encode, "--share", f"{rank}/3"] for rank in range(3)],
            "ray": [[*encode, "--engine", "ray", "--processes", "2"]],
        }[way]
        longest = args.longest * (2 if way == "ray" else 1)
        kills, fresh = kill_again_and_again(commands, out, args.kills, longest, seed)
        compare(contents(out), REFERENCE)
        print(f"{way}: {kills} kills, identical ({fresh} times finished between)", flush=True)


if __name__ == "__main__":
    main()
