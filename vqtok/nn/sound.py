"""What all encoders and decoders of sound have in common."""

from __future__ import annotations

from vqtok.nn.conv import Stack


class SoundStack(Stack):
    """An encoder (float [B, T], full scale 1 -> latents [B, T / hop, D]) or a decoder back.

    Outside the signal is silence. What a latent or a sample depends on ends at ``context``, so a
    sound of any length can be coded in blocks: computed with the context around them and cut out.

    Attributes:
        hop: samples per latent; T is a multiple of it.
        sample_rate: in Hz, of the sound it is made for.
        context: what is seen around a latent's own hop of samples, (before, after): for an
            encoder in samples, for a decoder in latents.
    """

    modality = "audio"
    hop: int
    sample_rate: int
    context: tuple[int, int]  # type: ignore[assignment]  # time has two sides, images have four
