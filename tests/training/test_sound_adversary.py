import torch

from vqtok.training.sound_adversary import SoundAdversary


def adversary():
    torch.manual_seed(0)
    return SoundAdversary((64, 128), channels=4, adversarial=2.0, features=3.0)


def waves():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, 800, generator=generator).unbind()


def test_losses_are_hinges_of_the_verdicts():
    player, (output, target) = adversary(), waves()
    coded, real = player.discriminator(output), player.discriminator(target)
    hinge = sum((1 - verdict).clamp_min(0).mean() for verdict, _ in coded) / 2
    fooled = player.fool(output, target, 0)
    torch.testing.assert_close(fooled["adversarial"], 2 * hinge)
    distances = [
        (a - b).abs().mean() / b.abs().mean()
        for (_, first), (_, second) in zip(coded, real, strict=True)
        for a, b in zip(first, second, strict=True)
    ]
    torch.testing.assert_close(fooled["features"], 3 * sum(distances) / len(distances))
    learned = sum(
        (1 - first).clamp_min(0).mean() + (1 + second).clamp_min(0).mean()
        for (first, _), (second, _) in zip(real, coded, strict=True)
    )
    torch.testing.assert_close(player.learn(output, target, 0), learned / 2)


def test_only_the_model_moves_when_it_fools():
    player, (output, target) = adversary(), waves()
    output.requires_grad_()
    sum(player.fool(output, target, 0).values()).backward()
    assert output.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in player.parameters())
    assert all(parameter.requires_grad for parameter in player.parameters())


def test_the_judges_learn():
    player = adversary()
    optimizer = torch.optim.Adam(player.parameters(), 3e-3)
    losses = []
    for step in range(40):
        generator = torch.Generator().manual_seed(step)
        target = torch.randn(4, 800, generator=generator)
        output = 0.5 * torch.randn(4, 800, generator=generator)
        loss = player.learn(output, target, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert player.fool(target, target, 0)["features"] == 0
