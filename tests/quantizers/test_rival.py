"""Beside vector-quantize-pytorch, an independent implementation, wherever it does what papers say.

Not compared: its FSQ bound (it rounds the outermost levels the other way), its index order of FSQ
(int32) and LFQ (first dimension most significant), and everything random.
"""

import math

import pytest
import torch
import vector_quantize_pytorch as vqp
from vector_quantize_pytorch.vector_quantize_pytorch import orthogonal_loss_fn

from vqtok.quantizers import (
    BSQ,
    FSQ,
    LFQ,
    RandomProjectionQuantizer,
    ResidualQuantizer,
    SimVQ,
    VectorQuantizer,
)
from vqtok.quantizers.penalties import PENALTIES

K, D = 32, 6


def latents(seed=0, rows=300, dim=D):
    return torch.randn(1, rows, dim, generator=torch.Generator().manual_seed(seed))


def assert_near(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def started(**arguments):
    """A quantizer past its start, so that nothing random happens in a step."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(K, D, kmeans_iterations=0, revive_below=0.0, **arguments).train()
    quantizer(latents(9))
    return quantizer


def theirs(ours, **arguments):
    """Their quantizer with our codebook and statistics."""
    quantizer = vqp.VectorQuantize(
        **{"dim": D, "codebook_size": K, "decay": ours.decay, "rotation_trick": False, **arguments}
    )
    take_over(quantizer, ours)
    return quantizer.train()


def take_over(rival, ours):
    codebook = rival._codebook
    codebook.embed.data.copy_(ours.embeddings[None])
    codebook.cluster_size.data.copy_(ours.counts[None])
    codebook.embed_avg.data.copy_((ours.embeddings * ours.counts[:, None])[None])


@pytest.mark.parametrize("masked", [False, True])
def test_ema_steps(masked):
    ours = started(decay=0.9)
    rival = theirs(ours)
    for seed in range(3):
        x = latents(seed)
        mask = torch.rand(1, 300) < 0.7 if masked else None
        a, b = (x.clone().requires_grad_(True) for _ in range(2))
        result, (quantized, codes, loss) = ours(a, mask), rival(b, mask=mask)
        valid = torch.ones(1, 300, dtype=torch.bool) if mask is None else mask
        assert torch.equal(result.codes[..., 0][valid], codes[valid])
        assert_near(result.quantized[valid], quantized[valid])
        assert_near(result.losses["commitment"], loss.squeeze())
        (result.quantized.square() * valid[..., None]).sum().backward()
        (quantized.square() * valid[..., None]).sum().backward()
        assert_near(a.grad, b.grad)
        # They smooth counts by 1e-5.
        torch.testing.assert_close(ours.counts, rival._codebook.cluster_size[0])
        torch.testing.assert_close(ours.embeddings, rival._codebook.embed[0], rtol=1e-3, atol=1e-4)


def test_gradient_codebook():
    ours = started(learning="gradient")
    rival = theirs(ours, learnable_codebook=True, ema_update=False)
    x = latents().requires_grad_(True)
    result, (_, codes, loss) = ours(x), rival(x)
    assert torch.equal(result.codes[..., 0], codes)
    result.losses["codebook"].backward()
    loss.sum().backward()
    torch.testing.assert_close(ours.embeddings.grad, rival._codebook.embed.grad[0])


def test_cosine_codes():
    ours = started(cosine=True).eval()
    rival = theirs(ours, use_cosine_sim=True).eval()
    x = latents(rows=2000)
    result, (quantized, codes, _) = ours(x), rival(x)
    assert (result.codes[..., 0] == codes).float().mean() > 0.999  # theirs ties break in float32
    same = result.codes[..., 0] == codes
    torch.testing.assert_close(result.quantized[same], quantized[same])


def test_rotation_trick_gradient():
    ours = started(gradient="rotation").requires_grad_(False)
    rival = theirs(ours, rotation_trick=True)
    weights = latents(3)
    gradients = []
    for quantizer in (ours, rival):
        x = latents().requires_grad_(True)
        if quantizer is ours:
            quantized = ours(x).quantized
        else:
            quantized = rival(x, freeze_codebook=True)[0]
        (quantized * weights).sum().backward()
        gradients.append(x.grad)
    assert_near(*gradients)


def test_residual():
    layers = [started() for _ in range(3)]
    for index, layer in enumerate(layers):
        layer.embeddings.mul_(0.7**index)
    ours = ResidualQuantizer(layers).eval()
    rival = vqp.ResidualVQ(dim=D, num_quantizers=3, codebook_size=K, rotation_trick=False).eval()
    for layer, other in zip(layers, rival.layers, strict=True):
        take_over(other, layer)
    x = latents(rows=2000)
    result, (quantized, codes, _) = ours(x), rival(x)
    same = (result.codes == codes).all(-1)
    assert same.float().mean() > 0.999
    torch.testing.assert_close(result.quantized[same], quantized[same])
    codes = result.codes
    torch.testing.assert_close(ours.embed(codes), rival.get_output_from_indices(codes))


def test_orthogonal_penalty():
    table = torch.randn(K, D)
    ours = PENALTIES["orthogonal"](table, table, table, None)
    torch.testing.assert_close(ours, orthogonal_loss_fn(table[None]))


def test_simvq():
    torch.manual_seed(0)
    ours, rival = SimVQ(K, D).train(), vqp.SimVQ(dim=D, codebook_size=K, rotation_trick=False)
    rival.frozen_codebook.data.copy_(ours.vectors)
    rival.code_transform.weight.data.copy_(ours.transform.weight)
    x = latents()
    result, (quantized, codes, loss) = ours(x), rival(x)
    assert torch.equal(result.codes[..., 0], codes)
    torch.testing.assert_close(result.quantized, quantized)
    total = result.losses["codebook"] + 0.25 * result.losses["commitment"]
    torch.testing.assert_close(total, loss)
    total.backward()
    loss.backward()
    torch.testing.assert_close(ours.transform.weight.grad, rival.code_transform.weight.grad)


@pytest.mark.parametrize("levels", [[5, 5, 7], [8, 5, 5, 5], [3, 9]])
def test_fsq_codebook(levels):
    ours, rival = FSQ(levels), vqp.FSQ(levels)
    codes = torch.arange(math.prod(levels))
    assert torch.equal(ours.embed(codes[:, None]), rival.indices_to_codes(codes))


@pytest.mark.parametrize("spherical", [False, True])
def test_lookup_free(spherical):
    bits = 5
    ours = (BSQ if spherical else LFQ)(bits, temperature=1.0).train()
    rival = vqp.LFQ(
        dim=bits, codebook_size=2**bits, spherical=spherical, commitment_loss_weight=1.0
    ).train()
    x = latents(dim=bits)
    result = ours(x)
    (quantized, codes, _), parts = rival(
        x.flip(-1), inv_temperature=1.0, return_loss_breakdown=True
    )
    assert torch.equal(result.codes[..., 0], codes)  # with the dimensions the other way round
    assert_near(result.quantized, quantized.flip(-1))
    assert_near(result.losses["entropy"], parts.per_sample_entropy)
    assert_near(result.losses["diversity"], bits * math.log(2) - parts.batch_entropy)
    assert_near(result.losses["commitment"], parts.commitment)


def test_random_projection():
    torch.manual_seed(0)
    ours = RandomProjectionQuantizer(K, D, codebook_dim=4).eval()
    rival = vqp.RandomProjectionQuantizer(dim=D, codebook_size=K, codebook_dim=4, norm=False)
    rival.rand_projs.data.copy_(ours.projection[None])
    rival.vq._codebook.embed.data.copy_(ours.vectors[None])
    x = latents(rows=2000)
    assert (ours(x).codes[..., 0] == rival.eval()(x)).float().mean() > 0.999
