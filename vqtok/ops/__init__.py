"""Native kernels behind plain functions, each beside its reference in :mod:`vqtok.ops.reference`.

======================  ============================================================
nearest                 exact nearest-code lookup, the heart of every VQ layer
nearest_cosine          the same by angle
nearest_k               the nearest few codes and their distances
largest_product         the code with the largest dot product (plain torch)
beam_search             residual lookup that keeps several sums
quantize                codes and quantized rows in one pass, of one codebook or of residuals
ema_update              per-code counts and sums, for EMA codebooks and k-means
pack_bits, unpack_bits  fixed-width bit packing (:mod:`vqtok.ops.bits` for numpy)
native_available        whether the compiled module is in use
======================  ============================================================

Importing this package does not import torch; the first use of a torch function does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqtok.ops.native import native_available

if TYPE_CHECKING:
    from vqtok.ops.library import ema_update, nearest, nearest_cosine, pack_bits, unpack_bits
    from vqtok.ops.products import largest_product
    from vqtok.ops.residual import quantize
    from vqtok.ops.search import beam_search, nearest_k

__all__ = [
    "beam_search",
    "ema_update",
    "largest_product",
    "native_available",
    "nearest",
    "nearest_cosine",
    "nearest_k",
    "pack_bits",
    "quantize",
    "unpack_bits",
]


def __getattr__(name: str) -> Any:
    if name == "quantize":
        from vqtok.ops import residual

        return residual.quantize
    if name == "largest_product":
        from vqtok.ops import products

        return products.largest_product
    if name in ("nearest_k", "beam_search"):
        from vqtok.ops import search

        return getattr(search, name)
    if name in __all__:
        from vqtok.ops import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
