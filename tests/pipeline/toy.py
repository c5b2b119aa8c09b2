"""A tokenizer without a model, and a program that encodes with it under bad conditions.

``python toy.py SRC OUT MODE``, with JSON as the last line on stdout:

``crash``: encodes again and again, each time in a fork that exits without any clean-up at the n-th
thing it does to a file below OUT, for n = 1, 2, ..., until one run finishes.
``kill TIMES``: the same with SIGKILL after random delays.
``crash-last``: as ``crash``, but half of the job is done: the run does the other one and merges.
``ranks SIZE KILLS``: SIZE processes at once share the job; they are killed KILLS times at random
moments and started again.
``processes COUNT KILLS``: one job of COUNT processes; the first KILLS times that they begin to
encode, they are killed.
``ray COUNT KILLS``: the same with Ray actors.
``small BYTES``: encodes once where no file can grow beyond that.
``nobody``: encodes once without the rights of root.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time

import numpy as np
import torch
from PIL import Image

from vqtok.errors import VqtokError
from vqtok.media import list_sources
from vqtok.pipeline import Processes, Share, encode_dataset, make_plan
from vqtok.pipeline.on_ray import OnRay

Image.init()  # once, before any fork


class ToyTokenizer:
    """Block means of the red channel and of the green one, in 16 and 50 steps."""

    name = "toy"
    modality = "image"
    fingerprint = "70" * 32
    prior = None
    codebook_sizes = (16, 50)
    num_codebooks = 2
    downsample = 8
    device = torch.device("cpu")

    @classmethod
    def deadly(cls, marks: str, kills: int) -> ToyTokenizer:
        """One that kills its process while there are fewer than ``kills`` files in ``marks``."""
        tokenizer = cls()
        tokenizer.encode = functools.partial(cls._encode_or_die, tokenizer, marks, kills)
        return tokenizer

    def _encode_or_die(self, marks: str, kills: int, *args, **options) -> torch.Tensor:
        for number in range(kills):
            with contextlib.suppress(FileExistsError):
                open(f"{marks}/{number}", "x").close()
                os.kill(os.getpid(), signal.SIGKILL)
        return ToyTokenizer.encode(self, *args, **options)

    def encode(
        self, images: torch.Tensor, num_codebooks: int | None = None, rate_weight: float = 0.0
    ) -> torch.Tensor:
        pixels = images.numpy().astype(np.int64)
        height, width = pixels.shape[2:]
        padding = ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8))
        pixels = np.pad(pixels, padding, mode="edge")
        blocks = pixels.reshape(len(pixels), 3, pixels.shape[2] // 8, 8, -1, 8).sum((3, 5))
        planes = [blocks[:, q] * size // (64 * 256) for q, size in enumerate(self.codebook_sizes)]
        return torch.from_numpy(np.stack(planes, -1))[..., :num_codebooks]

    def decode(self, codes: torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
        size = size or (codes.shape[1] * 8, codes.shape[2] * 8)
        if (-(-size[0] // 8), -(-size[1] // 8)) != tuple(codes.shape[1:3]):
            raise ValueError(f"{list(codes.shape)} codes are not an image of size {size}")
        grey = codes.numpy()[..., 0].astype(np.uint8) * 16 + 8
        grey = grey.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]]
        return torch.from_numpy(np.stack([grey] * 3, 1))


def encode(source: str, out: str, **options: object) -> None:
    """Encode in shards of three inputs."""
    tokenizer = ToyTokenizer()
    workers = options.pop("workers", 2)
    running = {key: options.pop(key) for key in ("share", "engine") if key in options}
    plan = make_plan(list_sources(source), tokenizer, **{"shard_size": 3, **options})
    encode_dataset(plan, tokenizer, out, workers=workers, **running)


def encode_as_nobody(source: str, out: str) -> None:
    tokenizer = ToyTokenizer()
    plan = make_plan(list_sources(source), tokenizer)
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    encode_dataset(plan, tokenizer, out)


def in_fork(work, *arguments, **options) -> int:
    """Run ``work`` in a fork, which the caller may kill; returns its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work(*arguments, **options)
        status = 0
    except OSError as error:
        print(json.dumps({"errno": error.errno, "message": str(error)}), flush=True)
    finally:
        os._exit(status)


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def encode_until(limit: int, source: str, out: str, **options: object) -> None:
    """Encode, but be gone at the ``limit``-th event below ``out``."""
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in ("os.remove", "os.rmdir") or (  # which may name paths by open folders
            event.startswith(("open", "os.", "shutil."))
            and any(str(argument).startswith(out) for argument in arguments)
        ):
            seen += 1
            if seen == limit:
                os._exit(9)

    sys.addaudithook(watch)
    encode(source, out, **options)


def crash_at_every_step(source: str, out: str, *, shared: bool) -> int:
    """Encode into out-1, out-2, ..., each crashed once at a later step, then again; count them."""
    runs = 0
    options = {"share": Share(1, 2), "shard_size": 4} if shared else {}
    while True:
        runs += 1
        fresh = f"{out}-{runs}"
        if shared:
            encode(source, fresh, **{**options, "share": Share(0, 2)})
        if status_of(in_fork(encode_until, runs, source, fresh, **options)) == 0:
            return runs - 1
        assert status_of(in_fork(encode, source, fresh, **options)) == 0


def kill_ranks(source: str, out: str, size: int, kills: int) -> None:
    """Run processes that share a job, kill one at a time and start it again."""
    delays = random.Random(0)
    shares = [Share(rank, size) for rank in range(size)]
    children = [in_fork(encode, source, out, share=share) for share in shares]
    for _ in range(kills):
        time.sleep(delays.uniform(0, 0.05))
        rank = delays.randrange(size)
        os.kill(children[rank], signal.SIGKILL)
        status_of(children[rank])
        children[rank] = in_fork(encode, source, out, share=shares[rank])
    assert [status_of(child) for child in children] == [0] * size


def kill_until_done(source: str, out: str, seed: int) -> int:
    """Encode with kills at random moments, ever later ones, and count them."""
    delays, kills = random.Random(seed), 0
    while True:
        child = in_fork(encode, source, out)
        time.sleep(delays.uniform(0, 0.02 * (kills + 1)))
        os.kill(child, signal.SIGKILL)
        if status_of(child) == 0:
            return kills
        kills += 1


def main(source: str, out: str, mode: str, *rest: str) -> None:
    if mode.startswith("crash"):
        crashes = crash_at_every_step(source, out, shared=mode == "crash-last")
        print(json.dumps({"crashes": crashes}))
    elif mode == "ranks":
        kill_ranks(source, out, int(rest[0]), int(rest[1]))
        print(json.dumps({}))
    elif mode in ("processes", "ray"):
        count, kills = int(rest[0]), int(rest[1])
        marks = tempfile.mkdtemp(dir=os.path.dirname(out))
        load = functools.partial(ToyTokenizer.deadly, marks, kills)
        engine = (Processes if mode == "processes" else OnRay)(load, count)
        try:
            encode(source, out, engine=engine)
        except VqtokError as error:
            print(json.dumps({"error": str(error)}))
        else:
            print(json.dumps({"kills": len(os.listdir(marks))}))
    elif mode == "kill":
        print(json.dumps([kill_until_done(source, f"{out}-{i}", i) for i in range(int(rest[0]))]))
    elif mode == "small":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(rest[0]), int(rest[0])))
        assert status_of(in_fork(encode, source, out)) == 1
    elif mode == "nobody":
        assert status_of(in_fork(encode_as_nobody, source, out)) == 1


if __name__ == "__main__":
    main(*sys.argv[1:])
