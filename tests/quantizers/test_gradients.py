import torch

from vqtok.quantizers import rotation_trick, straight_through


def test_straight_through_is_quantized_forward_and_identity_backward():
    latents = torch.randn(7, 5, requires_grad=True)
    quantized = torch.randn(7, 5)
    passed = straight_through(latents, quantized)
    assert torch.equal(passed, quantized)
    weights = torch.randn(7, 5)
    (passed * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_rotation_trick_gradient_is_the_scaled_rotation_matrix():
    """Against the explicit matrix (|q|/|e|) R with R e^ = q^, R in the plane of e and q."""
    torch.manual_seed(0)
    latents = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    quantized = torch.randn(6, 5, dtype=torch.float64)
    passed = rotation_trick(latents, quantized)
    assert torch.equal(passed, quantized)
    weights = torch.randn(6, 5, dtype=torch.float64)
    (passed * weights).sum().backward()
    for row in range(6):
        e, q = latents[row].detach(), quantized[row]
        first = e / e.norm()
        second = q / q.norm() - (q / q.norm() @ first) * first
        second = second / second.norm()
        angle = torch.acos((q / q.norm()) @ first)
        plane = torch.stack([first, second], dim=1)
        turn = torch.tensor(
            [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]], dtype=torch.float64
        )
        identity = torch.eye(5, dtype=torch.float64)
        rotation = identity + plane @ (turn - torch.eye(2, dtype=torch.float64)) @ plane.T
        scaled = rotation * q.norm() / e.norm()
        torch.testing.assert_close(scaled @ e, q)
        torch.testing.assert_close(latents.grad[row], scaled.T @ weights[row])


def test_rotation_trick_survives_zero_and_opposite_vectors():
    latents = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, -1.0]], requires_grad=True)
    quantized = torch.tensor([[1.0, 0.0], [-1.0, -2.0], [0.0, 0.0]])
    passed = rotation_trick(latents, quantized)
    assert torch.equal(passed, quantized)
    passed.sum().backward()
    assert latents.grad.isfinite().all()


def test_straight_through_under_torch_func():
    x, quantized, weights = (torch.randn(5, 3) for _ in range(3))

    def loss(x, quantized, weights):
        return (straight_through(x, quantized) * weights).sum()

    assert torch.equal(torch.func.grad(loss)(x, quantized, weights), weights)
    assert torch.equal(torch.func.vmap(torch.func.grad(loss))(x, quantized, weights), weights)
