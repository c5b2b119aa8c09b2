"""What the scripts that put tokenizers into the package share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import vqtok
from vqtok.autoencoders.storage import CONFIG_NAME
from vqtok.tokenizer import Tokenizer

PRETRAINED = Path(__file__).resolve().parent.parent / "vqtok" / "pretrained"


def put(run: Path, name: str, root: Path = PRETRAINED) -> Path:
    """Make a finished run the latest version of the bundled tokenizer ``name``.

    The version before it, with its prior, moves to ``NAME@N``: datasets that it made stay readable
    for as long as that folder is there. Putting the same run again changes nothing.

    Returns:
        The folder of the new version.
    """
    fingerprint = Tokenizer.from_pretrained(run).fingerprint
    table = root / "versions.json"
    versions = json.loads(table.read_text(encoding="utf-8"))
    known = versions.setdefault(name, [])
    target = root / name
    if [each["fingerprint"] for each in known[-1:]] != [fingerprint]:
        if (target / CONFIG_NAME).is_file():
            target.rename(root / f"{name}@{len(known)}")
        known.append({"fingerprint": fingerprint, "since": vqtok.__version__})
        table.write_text(json.dumps(versions, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    target.mkdir(exist_ok=True)
    for file in (CONFIG_NAME, "model.safetensors"):
        shutil.copyfile(run / file, target / file)
    return target
