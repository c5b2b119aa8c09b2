"""The program as a process: start-up, signals, pipes, exit codes."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from vqtok.cli import VERBS, exit_code, main
from vqtok.errors import DataError, UsageError
from vqtok.media import write_image
from vqtok.tokens import TokenReader, verify

PROGRAM = [sys.executable, "-m", "vqtok"]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *[[v, "--help"] for v in VERBS]])
def test_help_needs_no_heavy_imports(arguments: list[str]) -> None:
    code = (
        "import sys, vqtok.cli\n"
        "try:\n    vqtok.cli.main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'numpy', 'PIL', 'tqdm'} & set(sys.modules), sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if arguments != ["--version"]:
        assert "examples:\n  vqtok " in done.stdout


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "\nvqtok: interrupted\n"),
        (UsageError("no such preset"), 2, "vqtok: error: no such preset\n"),
        (DataError("a.png is damaged"), 1, "vqtok: error: a.png is damaged\n"),
        (FileNotFoundError(2, "Nothing there", "a"), 1, "vqtok: error: a: Nothing there\n"),
    ],
)
def test_how_work_ends(error: BaseException, code: int, message: str, capsys) -> None:
    def work() -> None:
        raise error

    assert exit_code(work) == code
    assert capsys.readouterr().err == message
    assert exit_code(lambda: None) == 0
    assert exit_code(lambda: 3) == 3


def test_every_verb_is_in_the_help(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for verb in VERBS:
        assert re.search(rf"^    {verb}\s+\w", text, re.MULTILINE)
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "arguments",
    [[], ["juggle"], ["encode", "x"], ["encode", "x", "y", "--workers", "0"], ["verify", "--nope"]],
)
def test_bad_options_exit_with_2(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert re.search(r"^vqtok.*: error: ", capsys.readouterr().err, re.MULTILINE)


@pytest.fixture(scope="module")
def long_job(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A list of 100 inputs."""
    folder = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(0)
    write_image(folder / "x.png", rng.integers(0, 256, (64, 64, 3), np.uint8))
    (folder / "list.txt").write_text("x.png\n" * 100)
    return str(folder / "list.txt")


@contextmanager
def encoding(source: str, out: Path, tokenizer: str) -> Iterator[subprocess.Popen[str]]:
    """The program at work; dead at the end of the block."""
    command = [*PROGRAM, "encode", source, str(out), "--tokenizer", tokenizer, "--shard-size", "10"]
    pipe = subprocess.PIPE
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # little work, and a busy machine maybe
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_job_that_is_stopped_goes_on(long_job, tokenizer_folder, tmp_path, number) -> None:
    with encoding(long_job, tmp_path / "out", tokenizer_folder) as process:
        while not list(tmp_path.glob("out/.vqtok/part-00001.json")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(number)
        output, errors = process.communicate()
    assert output == ""
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors == "\nvqtok: interrupted; run the same command again to go on from here\n"
    assert not (tmp_path / "out/manifest.json").exists()
    for out in ("out", "undisturbed"):
        with encoding(long_job, tmp_path / out, tokenizer_folder) as process:
            errors = process.communicate()[1]
        assert (process.returncode, errors) == (0, "")
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "undisturbed"))
    for name in os.listdir(tmp_path / "out"):
        assert (tmp_path / "out" / name).read_bytes() == (
            tmp_path / "undisturbed" / name
        ).read_bytes()
    assert len(TokenReader(tmp_path / "out")) == 100


def test_a_full_disk_is_one_line(photos: str, tokenizer_folder: str, tmp_path: Path) -> None:
    command = [*PROGRAM, "encode", photos, str(tmp_path / "out"), "--tokenizer", tokenizer_folder]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900)),
    )
    assert done.returncode == 1
    shard = tmp_path / "out/shard-00000.safetensors"
    assert done.stderr.splitlines()[-1] == f"vqtok: error: {shard}: File too large"
    assert "Traceback" not in done.stderr
    assert verify(tmp_path / "out")


def test_a_closed_pipe_is_no_error(tokens: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, "verify", tokens], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_no_error(tokens: str, closed: str) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, "verify"]
    done = subprocess.run([*command, tokens], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*command, "/nowhere"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_bar_is_for_terminals_only(tokens: str) -> None:
    """Without one nothing is on standard error; on one there is a bar, without colours."""
    done = subprocess.run([*PROGRAM, "verify", tokens], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.run([*PROGRAM, "verify", tokens], stdout=subprocess.PIPE, stderr=follower)
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert "4/4" in shown
    assert "samples/s" in shown
    assert "\x1b[3" not in shown
