"""The compiled module: how it is found, what it links, which instructions and threads it uses."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vqtok.ops import native


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_is_built() -> None:
    assert native.native_available(), "build it: pip install -e ."
    assert native.supported_isas()[0] == "baseline"


@pytest.mark.parametrize("isa", native.supported_isas())
def test_environment_forces_an_isa(isa: str) -> None:
    result = run("from vqtok.ops import native; print(native.isa())", VQTOK_ISA=isa)
    assert result.stdout.strip() == isa


def test_unknown_isa_is_refused() -> None:
    code = "import torch; from vqtok import ops; ops.nearest(torch.ones(1, 1), torch.ones(1, 1))"
    result = run(code, VQTOK_ISA="mmx")
    assert result.returncode == 1
    assert "UsageError: VQTOK_ISA='mmx': this CPU and build offer baseline" in result.stderr


def test_without_it_one_warning_and_the_same_results() -> None:
    result = run(
        """
import sys, warnings
sys.modules["vqtok.ops._native"] = None
import numpy, torch
from vqtok import ops
from vqtok.ops import bits, reference
x, codebook = torch.randn(500, 5), torch.randn(40, 5)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    codes = ops.nearest(x, codebook)
    counts, sums = ops.ema_update(x, codes, 40)
    packed = ops.pack_bits(codes, 6)
    assert torch.equal(ops.unpack_bits(packed, 6, 500), codes)
    assert bits.unpack(bits.pack(codes.numpy(), 6), 6, 500).tolist() == codes.tolist()
assert len(caught) == 1, caught
assert "without its native module" in str(caught[0].message)
assert not ops.native_available()
assert torch.equal(codes, reference.nearest_by_definition(x, codebook))
assert counts.sum() == 500
"""
    )
    assert result.returncode == 0, result.stderr


def test_links_neither_a_driver_nor_torch() -> None:
    result = run(
        """
import sys
from vqtok.ops import native
assert native.load() is not None and "torch" not in sys.modules
print(*{line.split("/")[-1] for line in open("/proc/self/maps") if "/" in line})
"""
    )
    assert result.returncode == 0, result.stderr
    assert "_native" in result.stdout
    for library in ("libcuda", "libcudart", "libtorch", "libc10"):
        assert library not in result.stdout


@pytest.mark.parametrize("first", ["import torch", "from vqtok.ops import native; native.load()"])
def test_shares_one_openmp_with_torch(first: str) -> None:
    result = run(
        f"""
{first}
import torch
from vqtok.ops import native
assert native.load() is not None
(torch.ones(1000, 1000) @ torch.ones(1000, 1000)).sum()
print(*{{line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line}}, sep="\\n")
"""
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1, result.stdout


def test_uses_as_many_threads_as_torch() -> None:
    result = run(
        """
import os, torch
from vqtok import ops
x, codebook = torch.randn(20000, 8), torch.randn(512, 8)
count = lambda: len(os.listdir("/proc/self/task"))
torch.set_num_threads(1)
ops.nearest(x, codebook)
before = count()
torch.set_num_threads(4)
ops.nearest(x, codebook)
assert count() >= before + 3, (before, count())
""",
        OMP_NUM_THREADS="4",
    )
    assert result.returncode == 0, result.stderr


def test_everything_works_in_a_child_forked_after_threads_ran() -> None:
    result = run(
        """
import os, signal, torch
from vqtok import ops
from vqtok.ops import entropy
torch.set_num_threads(2)
x, codebook = torch.randn(60000, 16), torch.randn(300, 16)
def everything():
    codes = ops.nearest(x, codebook)
    planes = codes[:40].reshape(2, 4, 5).numpy().astype("uint32")
    packed = ops.pack_bits(codes, 9)
    return [
        codes, *ops.ema_update(x, codes, 300), packed, ops.unpack_bits(packed, 9, 60000),
        *ops.quantize(x, [codebook, codebook]), *ops.nearest_k(x[:999], codebook, 3),
        ops.beam_search(x[:999], [codebook] * 2, 2), ops.nearest_cosine(x, codebook),
    ], entropy.adaptive_encode(planes, (300, 300))
want, streams = everything()
child = os.fork()
if child == 0:
    signal.alarm(100)
    found, again = everything()
    torch.set_num_threads(1)  # or torch's own threads are waited for
    os._exit(0 if all(map(torch.equal, found, want)) and again == streams else 1)
assert os.waitpid(child, 0)[1] == 0
assert all(map(torch.equal, everything()[0], want))
"""
    )
    assert result.returncode == 0, result.stderr
