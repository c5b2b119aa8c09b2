"""What all encoders and decoders of sound have in common."""

from __future__ import annotations

from vqtok.nn.conv import Stack

ENDS = ("silence", "cut")


class SoundStack(Stack):
    """An encoder (float [B, T], full scale 1 -> latents [B, T / hop, D]) or a decoder back.

    What a latent or a sample depends on ends at ``context``, so a sound of any length can be coded
    in blocks: computed with the context around them and cut out.

    Attributes:
        hop: samples per latent; T is a multiple of it.
        sample_rate: in Hz, of the sound it is made for.
        context: what is seen around a latent's own hop of samples, (before, after): for an
            encoder in samples, for a decoder in latents. None: everything, so that a sound is
            coded in one piece; an encoder then takes any T and gives ceil(T / hop) latents.
        ends: what is beyond the ends of a sound: ``"silence"``, as if it went on; or ``"cut"``,
            whatever each layer makes of it, as in most published models; or ``"segments"``: the
            sound is in overlapping segments, see :class:`~vqtok.nn.segmented.SegmentedStack`.
    """

    modality = "audio"
    hop: int
    sample_rate: int
    context: tuple[int, int] | None  # type: ignore[assignment]  # time has two sides, images four
    ends: str = "silence"
