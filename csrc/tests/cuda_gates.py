"""Compiles the CUDA kernels and checks what the compiler made of them; no GPU is needed.

For every architecture: nothing is spilled, no kernel has a stack, none takes more registers than
its blocks can afford, and in the machine code the wide scan uses tensor cores and asynchronous
copies. What was compiled from the same sources before is not compiled again.

usage: cuda_gates.py BUILD_FOLDER

Without nvcc it says so and succeeds; without nvdisasm (in PATH, or from the Python package
nvidia-cuda-nvdisasm) it leaves the machine code unread and says so.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ARCHITECTURES = (80, 90, 100)
CSRC = Path(__file__).resolve().parents[1]
FLAGS = ("-std=c++17", "-O3", "-Xptxas", "-v", "-cubin", "-I", str(CSRC))
# Registers a thread may use, so that as many blocks as planned share a multiprocessor: two of 256
# threads of the small scan, one of the wide one, any number of the others.
REGISTERS = {"scan_small": 128, "scan_wide": 208}
OTHER_REGISTERS = 64
KERNELS = {
    "nearest.cu": {"prepare_codes", "scan_small", "scan_wide", "decide_rows", "settle_rows"},
    "ema.cu": {"count_codes", "offset_ranges", "start_codes", "place_rows", "sum_codes"},
}
INSTRUCTIONS = {"scan_wide": ("HMMA.1688.F32.TF32", "LDGSTS"), "scan_small": ("FFMA", "LDS.128")}
# The gate must see what it is for: this kernel indexes registers, which takes a stack.
BAD_KERNEL = """
__global__ void scan_wide(const int* at, float* out) {
  float values[64];
  for (int i = 0; i < 64; ++i) values[i] = out[i * at[i]];
  for (int i = 0; i < 64; ++i) out[i] = values[at[i] & 63];
}
"""


def kernel_name(mangled: str) -> str:
    """`scan_wide` of `_ZN5vqtok9scan_wideENS_...`, `_Z9scan_widePKiPf`."""
    for length, rest in re.findall(r"(?=(?<!\d)(\d+)([A-Za-z_]\w*))", mangled):
        name = str(rest[: int(length)])
        if name != "vqtok":
            return name
    return mangled


def resource_problems(log: str, expected: set[str]) -> list[str]:
    """What the report of `ptxas -v` says against the kernels."""
    problems, seen = [], set()
    for part in log.split("Compiling entry function '")[1:]:
        name = kernel_name(part.split("'")[0])
        seen.add(name)
        lines = re.findall(r"(\d+) bytes (stack|spill \w+)", part)
        sizes = {what: int(size) for size, what in lines}
        found = re.search(r"Used (\d+) registers", part)
        if found is None or set(sizes) != {"stack", "spill stores", "spill loads"}:
            problems.append(f"{name}: ptxas reports nothing that this script can read")
            continue
        problems += [f"{name}: {size} bytes of {what}" for what, size in sizes.items() if size]
        budget = REGISTERS.get(name, OTHER_REGISTERS)
        if int(found[1]) > budget:
            problems.append(f"{name}: {found[1]} registers, more than {budget}")
    return problems + [f"{name}: not compiled" for name in sorted(expected - seen)]


def code_problems(code: str, expected: set[str]) -> list[str]:
    """What the machine code says against the kernels."""
    problems, seen = [], set()
    for part in re.split(r"^\.text\.(?=\w+:)", code, flags=re.MULTILINE)[1:]:
        name = kernel_name(part.split(":")[0])
        seen.add(name)
        instructions = set(re.findall(r"\b[A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)*", part))
        problems += [f"{name}: {i}, local memory" for i in instructions if i[:3] in ("LDL", "STL")]
        for wanted in INSTRUCTIONS.get(name, ()):
            found = any(i.startswith(wanted) for i in instructions)
            problems += [] if found else [f"{name}: no {wanted}"]
    return problems + [f"{name}: no machine code" for name in sorted(expected - seen)]


def find_disassembler() -> str | None:
    packaged = Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/nvdisasm")
    return shutil.which("nvdisasm") or next((str(path) for path in packaged), None)


def compile_once(nvcc: str, source: Path, architecture: int, build: Path, key: str) -> Path:
    """The cubin, beside it the report of ptxas; from an earlier run if nothing changed."""
    cubin = build / f"{source.stem}-{architecture}-{key}.cubin"
    log = cubin.with_suffix(".log")
    if cubin.exists() and log.exists():
        return cubin
    fresh = cubin.with_suffix(f".{os.getpid()}.tmp")
    command = [nvcc, *FLAGS, f"-arch=sm_{architecture}", str(source), "-o", str(fresh)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    log.write_text(result.stdout + result.stderr)
    fresh.replace(cubin)
    return cubin


def problems_of(cubin: Path, disassembler: str | None, expected: set[str]) -> list[str]:
    problems = resource_problems(cubin.with_suffix(".log").read_text(), expected)
    if disassembler:
        code = subprocess.run(
            [disassembler, "-c", str(cubin)], capture_output=True, text=True, check=True
        ).stdout
        problems += code_problems(code, expected)
    return [f"{cubin.name}: {problem}" for problem in problems]


def version_key(nvcc: str) -> str:
    """Changes with the compiler, its flags and every source that it may read."""
    digest = hashlib.sha256(subprocess.check_output([nvcc, "--version"]) + repr(FLAGS).encode())
    for path in sorted(p for folder in ("common", "cuda") for p in (CSRC / folder).iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if nvcc is None:
        print("cuda-gates: SKIPPED, no nvcc (CUDA 13) is here")
        return
    disassembler = find_disassembler()
    if disassembler is None:
        print("cuda-gates: machine code NOT CHECKED, no nvdisasm is here")
    build = Path(sys.argv[1])
    build.mkdir(parents=True, exist_ok=True)
    bad = build / "bad.cu"
    bad.write_text(BAD_KERNEL)
    key = version_key(nvcc)
    jobs = [(CSRC / "cuda" / name, arch) for name in KERNELS for arch in ARCHITECTURES]
    with ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(compile_once, nvcc, source, architecture, build, key)
            for source, architecture in [*jobs, (bad, 80)]
        ]
        cubins = [job.result() for job in waiting]
    for old in build.glob("*.*"):
        if key not in old.name:
            old.unlink()
    caught = problems_of(cubins.pop(), disassembler, {"scan_wide"})
    wanted = {"bytes of stack"} | ({"STL", "no HMMA"} if disassembler else set())
    if missed := {what for what in wanted if not any(what in problem for problem in caught)}:
        sys.exit(f"cuda-gates: a bad kernel passes unnoticed: {missed} not in {caught}")
    problems: list[str] = []
    for (source, _), cubin in zip(jobs, cubins, strict=True):
        problems += problems_of(cubin, disassembler, KERNELS[source.name])
    if problems:
        sys.exit("\n".join(["cuda-gates: FAILED", *problems]))
    print(f"cuda-gates: {len(cubins)} objects for sm_{', sm_'.join(map(str, ARCHITECTURES))} pass")


if __name__ == "__main__":
    main()
