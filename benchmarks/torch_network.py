"""The study's residual network in PyTorch, for the comparison of speed."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


class Bottleneck(nn.Module):
    def __init__(
        self, channels: int, filters: tuple[int, ...], stride: int = 1, shortcut: bool = False
    ):
        super().__init__()
        f1, f2, f3 = filters
        self.main = nn.Sequential(
            nn.Conv2d(channels, f1, 1, stride),
            _norm(f1),
            nn.ReLU(),
            nn.Conv2d(f1, f2, 3, padding=1),
            _norm(f2),
            nn.ReLU(),
            nn.Conv2d(f2, f3, 1),
            _norm(f3),
        )
        self.shortcut = (
            nn.Sequential(nn.Conv2d(channels, f3, 1, stride), _norm(f3))
            if shortcut
            else nn.Identity()
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.main(x) + self.shortcut(x))


def residual_network(identity_blocks: Sequence[int], dropout: float) -> nn.Module:
    """Logits (batch, 10) from images (batch, 3, 32, 32)."""
    layers = [
        nn.Conv2d(3, 64, 3, padding=1),
        _norm(64),
        nn.ReLU(),
    ]
    channels = 64
    stages = ((16, 16, 64), (32, 32, 128), (64, 64, 256))
    for stage, (filters, count) in enumerate(zip(stages, identity_blocks, strict=True)):
        if stage:
            layers.append(Bottleneck(channels, filters, stride=2, shortcut=True))
        channels = filters[2]
        layers += [Bottleneck(channels, filters) for _ in range(count)]
    layers += [nn.AvgPool2d(2), nn.Flatten()]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(4 * 4 * 256, 10))
