"""Debian packages as sources of files: downloaded, checked and unpacked; nothing is installed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path


def fetch(name: str, sha256: str, debs: Path, folder: Path, version: str = "") -> Path:
    """Download a package to ``debs`` and unpack it as ``folder``, which is returned.

    What is there already is kept, but for what an interrupted download left.
    """
    if folder.is_dir():
        return folder
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            sys.exit(f"{name} is a Debian package, which needs apt-get and dpkg: no {tool} here")
    debs.mkdir(parents=True, exist_ok=True)
    file = downloaded(name, sha256, debs)
    if file is None:
        wanted = f"{name}={version}" if version else name
        if subprocess.run(["apt-get", "download", wanted], cwd=debs, stdout=sys.stderr).returncode:
            sys.exit(f"apt-get cannot download {wanted}: run apt-get update, on Debian 12?")
        file = downloaded(name, sha256, debs)
    if file is None:
        sys.exit(f"what apt-get downloads as {name} has not the SHA-256 {sha256}: another version?")
    unpacked = folder.with_name(f"{folder.name}.tmp")
    unpacked.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["dpkg", "-x", file, unpacked]).returncode:
        sys.exit(f"dpkg cannot unpack {file}: is the disk full?")
    unpacked.rename(folder)
    return folder


def downloaded(name: str, sha256: str, debs: Path) -> Path | None:
    """The package's file, if it is there and whole; others of its name are removed."""
    for file in debs.glob(f"{name}_*.deb"):
        digest = hashlib.sha256()
        with open(file, "rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() == sha256:
            return file
        file.unlink()
    return None
