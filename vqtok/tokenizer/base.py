"""What tokenizers of every modality have in common: identity, saving, loading, moving."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder, build_autoencoder
from vqtok.autoencoders.storage import (
    fingerprint,
    load_model,
    read_config,
    save_model,
)
from vqtok.errors import DataError, UsageError
from vqtok.nn import channels_last
from vqtok.tokenizer.bundled import find_pretrained
from vqtok.tokens.prior import PRIOR, Prior

if TYPE_CHECKING:
    from typing_extensions import Self

    from vqtok.tokenizer.choice import Choice

_CONFIG_TYPES: dict[str, type] = {
    "name": str,
    "modality": str,
    "fingerprint": str,
    "autoencoder": dict,
    "training": dict,
}
_MODALITIES = {
    "image": ("vqtok.tokenizer.images", "ImageTokenizer"),
    "audio": ("vqtok.tokenizer.audio", "AudioTokenizer"),
}


class Tokenizer:
    """Turns images or sounds into codes and back.

    ``Tokenizer.from_pretrained(...)`` and ``Tokenizer(autoencoder, ...)`` give the subclass for the
    modality of the autoencoder. Codes depend on the input alone: not on the batch it comes in, nor
    on what else was coded. The network runs in float32 unless :meth:`to` says otherwise.

    Args:
        autoencoder: the trained model.
        name: for people; the fingerprint identifies.
        training: how the weights came about (settings, seed, versions, machine), kept with them.
        config: the autoencoder's config as it was saved, for the fingerprint: a later vqtok may
            spell the same model differently. Default: the autoencoder's own.
    """

    modality: str
    precisions: tuple[str, ...] = ("float32",)
    """What the network may run in, see :meth:`to`."""

    def __new__(cls, autoencoder: Autoencoder, **options: Any) -> Self:
        if cls is Tokenizer:
            kind = getattr(autoencoder.encoder, "modality", "image")
            return cast("Self", super().__new__(_class_of(kind)))
        return super().__new__(cls)

    def __init__(
        self,
        autoencoder: Autoencoder,
        *,
        name: str,
        training: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.autoencoder: Autoencoder = autoencoder.float().eval().requires_grad_(False)
        channels_last(self.autoencoder)
        self.name = name
        self.training = dict(training or {})
        self.precision = "float32"
        self._folder: Path | None = None
        self._choice: tuple[Any, Choice] | None = None
        self.config = dict(config or autoencoder.config)
        # What decides the codes and what they mean.
        parts = {key: self.config[key] for key in ("encoder", "quantizer", "decoder")}
        parts |= {"options": self.options} if self.options else {}
        self.fingerprint = fingerprint(parts, autoencoder)

    def __getnewargs__(self) -> tuple[Autoencoder]:
        """What :meth:`__new__` takes, so that copies and pickles (of data workers) can be made."""
        return (self.autoencoder,)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, codebook_sizes={self.codebook_sizes}, "
            f"fingerprint={self.fingerprint[:12]!r})"
        )

    @property
    def options(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor beside the model, kept and fingerprinted."""
        return {}

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The size K of each of the Q codebooks."""
        return self.autoencoder.quantizer.codebook_sizes

    @property
    def num_codebooks(self) -> int:
        """Q."""
        return len(self.codebook_sizes)

    @cached_property
    def prior(self) -> Prior | None:
        """The prior over the codes that lies beside the weights, None where there is none.

        Raises DataError when it is malformed, UsageError when it is of another tokenizer.
        """
        path = None if self._folder is None else self._folder / PRIOR
        if path is None or not path.is_file():
            return None
        prior = Prior.load(path)
        if prior.tokenizer != self.fingerprint or prior.codebook_sizes != self.codebook_sizes:
            raise UsageError(
                f"{path} was trained on the codes of another tokenizer ({prior.tokenizer[:12]}, "
                f"this is {self.fingerprint[:12]}): train it again or remove it"
            )
        return prior

    def choice(self, num_codebooks: int, rate_weight: float) -> Choice | None:
        """What chooses the codes at a rate weight, see ``encode``; None where that is 0.

        Raises:
            ValueError: ``rate_weight`` is out of range.
            UsageError: there is no prior, or the quantizer's codebooks do not add up.
        """
        from vqtok.tokenizer.choice import Choice

        if rate_weight == 0:
            return None
        if self.prior is None:
            raise UsageError(
                f"tokenizer {self.name!r} has no prior, by which rate_weight counts bits: make one "
                "with vqtok train-prior, or leave rate_weight out"
            )
        key = (num_codebooks, rate_weight, self.prior.digest)
        if self._choice is None or self._choice[0] != key:
            quantizer = self.autoencoder.quantizer
            self._choice = key, Choice(self.prior, quantizer, num_codebooks, rate_weight)
        return self._choice[1]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.autoencoder.parameters()).device

    def to(self, device: str | torch.device | None = None, *, precision: str | None = None) -> Self:
        """Move the model, or choose what its network runs in; returns self.

        Args:
            device: where the model goes.
            precision: ``"float32"``, or of images ``"bfloat16"``: convolutions are twice as fast
                where the processor has it (AMX, GPUs), quantization stays in float32. Some codes
                are others then (1.5% of the first codebook of ``photo``), hardly worse ones, and
                pixels come back a little different.

        Raises:
            UsageError: tokenizers of this modality do not run in ``precision``, or ``device`` is
                a dtype.
        """
        if isinstance(device, torch.dtype):
            raise UsageError(
                f"{device} is no device; the precision is a name, as in precision='bfloat16'"
            )
        if device is not None:
            self.autoencoder.to(device)
        if precision is not None:
            if precision not in self.precisions:
                raise UsageError(
                    f"tokenizers of modality {self.modality!r} run in "
                    f"{' or '.join(self.precisions)}, not in {precision}"
                )
            self.precision = precision
        return self

    def encode(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """A batch to codes: int64 [B, ..., q]; see the subclass for the modality."""
        raise NotImplementedError

    def decode(self, codes: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Codes [B, ..., q] of the first q codebooks back to a batch; see the subclass."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, made if needed, and
        ``prior.safetensors`` if there is a prior.

        Tensors that float16 or float8 (e4m3) holds without loss are stored in it.
        """
        description = {
            "name": self.name,
            "modality": self.modality,
            "fingerprint": self.fingerprint,
            "autoencoder": self.config,
            **({"options": self.options} if self.options else {}),
            "training": self.training,
        }
        save_model(Path(folder), self.autoencoder, description)
        if self.prior is not None:
            self.prior.save(Path(folder) / PRIOR)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path) -> Self:
        """Load a bundled tokenizer by its name (``photo``, or ``photo@1``), or any by its folder.

        Raises:
            UsageError: there is no such tokenizer, it is an autoencoder instead, or (of a subclass)
                it is of another modality.
            DataError: its files are damaged, or of a newer vqtok.
        """
        folder = find_pretrained(name_or_folder)
        if read_config(folder, {}).get("kind") == "autoencoder":
            raise UsageError(
                f"{folder} is an autoencoder, not a tokenizer; see vqtok inspect {folder}"
            )
        config = read_config(folder, _CONFIG_TYPES)
        kind = config["modality"]
        if kind not in _MODALITIES:
            raise DataError(
                f"tokenizer {folder} is for modality {kind!r}, "
                f"this vqtok knows {' and '.join(_MODALITIES)}"
            )
        if not issubclass(_class_of(kind), cls):
            raise UsageError(f"tokenizer {folder} is for modality {kind!r}, not {cls.modality!r}")
        autoencoder = load_model(folder, lambda: build_autoencoder(config["autoencoder"]))
        try:
            tokenizer = _class_of(kind)(
                autoencoder,
                name=config["name"],
                training=config["training"],
                config=config["autoencoder"],
                **config.get("options", {}),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"tokenizer {folder} cannot be loaded: {error}") from error
        if tokenizer.fingerprint != config["fingerprint"]:
            raise DataError(
                f"tokenizer {folder} is damaged: its weights have fingerprint "
                f"{tokenizer.fingerprint[:12]}, its config says {config['fingerprint'][:12]}"
            )
        assert isinstance(tokenizer, cls)
        tokenizer._folder = folder
        return tokenizer


def _class_of(modality: str) -> type[Tokenizer]:
    module, name = _MODALITIES[modality]
    found: type[Tokenizer] = getattr(import_module(module), name)
    return found


_lock = threading.Lock()
_precisions: list[tuple[str, bool]] = []  # one entry for every user; the first is the caller's


@contextmanager
def strict_precision(device: torch.device, precision: str = "float32") -> Iterator[None]:
    """Run in ``precision`` whatever the caller's autocast and reduced-precision settings are.

    These settings are the process's, so the first of several threads changes them and the last one
    changes them back.
    """
    with _lock:
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        _precisions.append(_precisions[0] if _precisions else before)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    try:
        reduced = precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16 if reduced else None, enabled=reduced):
            yield
    finally:
        with _lock:
            precision, convolutions = _precisions.pop()
            if not _precisions:
                torch.set_float32_matmul_precision(precision)
                torch.backends.cudnn.allow_tf32 = convolutions
