"""Published tokenizers in vqtok's own modules. A family is one file and one line below."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vqtok._version import __version__
from vqtok.autoencoders import Autoencoder
from vqtok.errors import DataError, UsageError
from vqtok.importers import dac, emu3, encodec, hub, maskgit, mimi, snac, var, vqgan
from vqtok.importers.checkpoint import Checkpoint, read_checkpoint
from vqtok.importers.vector_quantize_pytorch import load_fsq, load_quantizer
from vqtok.tokenizer import Tokenizer

__all__ = [
    "FAMILIES",
    "Checkpoint",
    "Family",
    "load",
    "load_fsq",
    "load_quantizer",
    "read_checkpoint",
]


class Family(NamedTuple):
    """How the checkpoints of one layout are read.

    Attributes:
        recognises: whether a checkpoint is one of them, by names and shapes.
        build: the model with the checkpoint's weights; DataError for the first wrong tensor.
        options: names of what else ``build`` takes.
    """

    recognises: Callable[[Checkpoint], bool]
    build: Callable[..., Autoencoder]
    options: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    "var": Family(var.recognises, var.build),
    "maskgit": Family(maskgit.recognises, maskgit.build, ("pixels",)),
    "vqgan": Family(vqgan.recognises, vqgan.build, ("compare", "pixels")),
    "emu3": Family(emu3.recognises, emu3.build),
    "encodec": Family(encodec.recognises, encodec.build, ("sample_rate",)),
    "snac": Family(snac.recognises, snac.build),
    "dac": Family(dac.recognises, dac.build, ("sample_rate",)),
    "mimi": Family(mimi.recognises, mimi.build),
}


_IMPOSSIBLE = (ValueError, TypeError, RuntimeError, IndexError, ArithmeticError, MemoryError)
"""What constructors say of the model that sizes and settings describe: no channels, no memory."""


def load(
    path: str | Path, family: str = "auto", *, name: str | None = None, **options: Any
) -> Tokenizer:
    """A tokenizer from published weights.

    Args:
        path: of a checkpoint: a file (.safetensors, or a pickle of tensors), a folder with weights
            and ``config.json`` as transformers and diffusers save them, or ``hub:owner/name``.
        family: in :data:`FAMILIES`, or ``"auto"`` to go by names and shapes.
        name: of the tokenizer (default: that of the file or folder).
        options: of the family's ``build``.

    Returns:
        one that encodes and decodes like any, and can be saved with ``save_pretrained``.

    Raises:
        UsageError: there is no such checkpoint, family or option, or the checkpoint is of another
            family.
        DataError: the checkpoint cannot be read, is of no family that vqtok knows, or does not fit
            its family; the message names the first wrong tensor.
    """
    if family != "auto" and family not in FAMILIES:
        raise UsageError(f"unknown family {family!r}, expected one of {', '.join(FAMILIES)}")
    path = hub.fetch(str(path)) if str(path).startswith(hub.PREFIX) else Path(path)
    checkpoint = _unwrapped(read_checkpoint(path), family)
    if family == "auto":
        family = _family_of(checkpoint, path)
    elif not FAMILIES[family].recognises(checkpoint):
        _refuse_another(checkpoint, path, family)
    foreign = set(options) - set(FAMILIES[family].options)
    if foreign:
        raise UsageError(f"family {family} has no choice of {', '.join(sorted(foreign))}")
    try:
        model = FAMILIES[family].build(checkpoint, **options)
    except UsageError:
        raise
    except DataError as error:
        raise DataError(f"{path}, as {family}: {error}") from error
    except KeyError as error:
        raise DataError(f"{path}, as {family}: tensor {error} is missing") from error
    except _IMPOSSIBLE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}, as {family}: {reason}") from error
    origin = {"family": family, "files": dict(checkpoint.files), "vqtok": __version__}
    return Tokenizer(model, name=name or path.stem, training={"imported": origin})


def _unwrapped(checkpoint: Checkpoint, family: str) -> Checkpoint:
    """The checkpoint without ``module.`` and the like before all names, if a family knows it so."""
    families = FAMILIES.values() if family == "auto" else [FAMILIES[family]]
    inner: Checkpoint | None = checkpoint
    while inner is not None and not any(each.recognises(inner) for each in families):
        inner = inner.bare()
    return inner or checkpoint


def _family_of(checkpoint: Checkpoint, path: Path) -> str:
    for name, family in FAMILIES.items():
        if family.recognises(checkpoint):
            return name
    names = list(checkpoint.tensors)
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    raise DataError(
        f"{path} is of no family that vqtok knows ({', '.join(FAMILIES)}); its tensors are {some} "
        f"({len(names):,} in all; if it should be one, name the family to hear what is missing)"
    )


def _refuse_another(checkpoint: Checkpoint, path: Path, family: str) -> None:
    """UsageError if the names are those of another family than the one that was asked for."""
    for name, other in FAMILIES.items():
        if other.recognises(checkpoint):
            raise UsageError(
                f"{path} is of family {name} by the names of its tensors, not {family}: leave the "
                "family out, or name that"
            )
