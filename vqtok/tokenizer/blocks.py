"""Blocks of fixed size through a network: what makes codes independent of everything around.

How a sum is rounded depends on the shape of the batch and on the number of threads that share it,
and a near tie between two codes can then fall either way. So every call of the network has one
shape, one block, and one thread; several blocks are computed at once, each in a thread of its own.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.tokenizer.base import strict_precision

WHOLE = sys.maxsize
"""Frames of a block that no sound fills."""

_lock = threading.Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


class BlockCoder:
    """A network of sound that codes one block of frames at a time.

    Beyond both ends of a sound is silence: zeros for the encoder, and for the decoder the codes
    that the encoder gives zeros. Networks whose ``ends`` are cut see nothing there.

    Args:
        autoencoder: its encoder and decoder have ``hop`` and ``context``.
        block: frames.

    Attributes:
        block: frames; :data:`WHOLE` if the network sees everything at once.
    """

    def __init__(self, autoencoder: Autoencoder, block: int) -> None:
        self.autoencoder = autoencoder
        encoder: Any = autoencoder.encoder
        decoder: Any = autoencoder.decoder
        self.hop: int = encoder.hop
        self.encoder_margin = self.decoder_margin = (0, 0)
        self._silence: Tensor | None = None
        whole = encoder.context is None or decoder.context is None
        self.block = WHOLE if whole else block
        if whole:
            return
        before, after = encoder.context
        self.encoder_margin = (-(-before // self.hop), -(-after // self.hop))
        before, after = decoder.context
        # The last frame waits for the end in any case: it may hold less than a hop.
        self.decoder_margin = (before, max(after, 1))

    @property
    def silence(self) -> Tensor:
        """int64 [Q], the codes of a frame with nothing but zeros near it."""
        if self._silence is None:
            frames = sum(self.encoder_margin) + self.block
            self._silence = self.encode([torch.zeros(frames * self.hop)], None)[0][0]
        return self._silence

    def encode(
        self, windows: Sequence[Tensor], num_codebooks: int | None, kept: slice | None = None
    ) -> list[Tensor]:
        """Samples with what is around them to codes.

        Args:
            windows: float32 [frames * hop] each, all of one length.
            num_codebooks: use the first q.
            kept: the frames that are wanted; default: the block between the encoder's margins.

        Returns:
            int64 [kept frames, q] each, on the CPU.
        """
        quantizer = self.autoencoder.quantizer

        def encode(latents: Tensor) -> Tensor:
            return quantizer(latents, num_codebooks=num_codebooks).codes[0].cpu()

        return self._encode(windows, kept, encode)

    def latents(self, windows: Sequence[Tensor], kept: slice | None = None) -> list[Tensor]:
        """As :meth:`encode`, but float32 [kept frames, D] before quantization."""
        return self._encode(windows, kept, lambda latents: latents[0].cpu())

    def _encode(
        self,
        windows: Sequence[Tensor],
        kept: slice | None,
        finish: Callable[[Tensor], Tensor],
    ) -> list[Tensor]:
        before, _ = self.encoder_margin
        wanted = kept or slice(before, before + self.block)
        device = self.device

        def encode(window: Tensor) -> Tensor:
            # A fresh copy, since even how it lies in memory could matter to a matrix product.
            latents = self.autoencoder.encoder(window[None].clone().to(device))
            return finish(latents[:, wanted].clone())

        return each_alone(encode, windows, device)

    def decode(self, windows: Sequence[Tensor], kept: slice | None = None) -> list[Tensor]:
        """Codes with what is around them to samples.

        Args:
            windows: integer [frames, q] each, all of one length.
            kept: the frames that are wanted; default: the block between the decoder's margins.

        Returns:
            float32 [kept frames * hop] each (of a decoder of stereo [2, ...]), on the CPU.
        """
        before, _ = self.decoder_margin
        wanted = kept or slice(before, before + self.block)
        inside = slice(wanted.start * self.hop, wanted.stop * self.hop)
        device = self.device

        def decode(window: Tensor) -> Tensor:
            quantized = self.autoencoder.quantizer.embed(window[None].clone().to(device))
            samples: Tensor = self.autoencoder.decoder(quantized)
            return samples[0, ..., inside].float().cpu()

        return each_alone(decode, windows, device)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.autoencoder.parameters()).device


def each_alone(
    function: Callable[[Tensor], Tensor], windows: Sequence[Tensor], device: torch.device
) -> list[Tensor]:
    """``function`` of every window, each call in one thread."""

    def alone(window: Tensor) -> Tensor:
        with torch.no_grad(), strict_precision(device):
            return function(window)

    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return [alone(window) for window in windows]
    return list(_pool(threads).map(alone, windows))


def _pool(threads: int) -> ThreadPoolExecutor:
    """As many threads as torch uses now, each of which torch leaves alone; remade after a fork."""
    key = (os.getpid(), threads)
    with _lock:
        if key not in _pools:
            _pools.clear()
            pool = ThreadPoolExecutor(threads, thread_name_prefix="vqtok-block")
            ready = threading.Barrier(threads + 1)

            def prepare() -> None:
                torch.get_num_threads()  # a thread takes over the number of all when it first asks
                torch.set_num_threads(1)
                ready.wait()

            for _ in range(threads):
                pool.submit(prepare)
            ready.wait()
            torch.set_num_threads(threads)  # what threads that are yet to come will use
            _pools[key] = pool
        return _pools[key]
