"""Builds the native module `vqtok.ops._native` from csrc/ with CMake and Ninja; the rest is in
pyproject.toml.

Environment:
    VQTOK_CUDA: auto (default: CUDA when nvcc is found), 0 (never) or 1 (fail without nvcc)
    VQTOK_CUDA_ARCHS: architectures for nvcc, default "80;90;100"
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*") if p.is_file())


class CMakeBuild(build_ext):
    """Lets CMake decide what is stale: switching VQTOK_CUDA must never reuse an old module."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.force = True

    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve() / "cmake"
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake",
            *("-G", "Ninja", "-S", str(ROOT / "csrc"), "-B", str(build)),
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DVQTOK_CUDA={os.environ.get('VQTOK_CUDA', 'auto')}",
            f"-DVQTOK_CUDA_ARCHS={os.environ.get('VQTOK_CUDA_ARCHS', '80;90;100')}",
            f"-DVQTOK_MODULE_DIR={target.parent}",
            f"-DVQTOK_MODULE_NAME={target.name}",
        ]
        # A cached configuration may name the interpreter or Ninja of a finished isolated build.
        cache = build / "CMakeCache.txt"
        cache.unlink(missing_ok=True)
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", "_native"], check=True)


setup(
    ext_modules=[Extension("vqtok.ops._native", sources=SOURCES)],
    cmdclass={"build_ext": CMakeBuild},
)
