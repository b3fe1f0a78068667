"""The study's residual network in PyTorch, for the comparison of speed."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks.subjects import BATCH, images
from resnet.study import Experiment


def convolution(channels: int, filters: int, size: int, stride: int = 1) -> nn.Module:
    """Makes one with batch normalisation."""
    convolution = nn.Conv2d(channels, filters, size, stride, padding=size // 2)
    return nn.Sequential(convolution, nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, filters: tuple[int, int, int], stride: int = 1):
        super().__init__()
        f1, f2, f3 = filters
        self.main = nn.Sequential(
            convolution(channels, f1, 1, stride),
            nn.ReLU(),
            convolution(f1, f2, 3),
            nn.ReLU(),
            convolution(f2, f3, 1),
        )
        same = stride == 1
        self.shortcut = nn.Identity() if same else convolution(channels, f3, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.main(x) + self.shortcut(x))


def residual_network(identity_blocks: Sequence[int], dropout: float) -> nn.Module:
    """Makes one from images (batch, 3, 32, 32) to logits (batch, 10)."""
    channels = 64
    layers = [convolution(3, channels, 3), nn.ReLU()]
    stages = ((16, 16, 64), (32, 32, 128), (64, 64, 256))
    for stage, (filters, count) in enumerate(zip(stages, identity_blocks, strict=True)):
        if stage:
            layers.append(Bottleneck(channels, filters, stride=2))
        channels = filters[2]
        layers += [Bottleneck(channels, filters) for _ in range(count)]
    layers += [nn.AvgPool2d(2), nn.Flatten()]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(4 * 4 * 256, 10))


def training_step(of: Experiment, n: int, compiled: bool, device: str) -> Callable[[int], None]:
    """Makes a step on the batch that begins at a position of ``n`` images, which are on the device.

    Args:
        of: whose network it is.
        n: how many images.
        compiled: by Inductor, channels last; on a GPU into CUDA graphs, with fused Adam. Else
            eager, as it comes.
        device: ``cpu`` or ``cuda``.
    """
    if of.model.architecture != "residual":
        raise SystemExit("there is no VGG in PyTorch here")
    graphs = compiled and device == "cuda"
    layout = torch.channels_last if compiled else torch.contiguous_format
    network = residual_network(of.model.settings["identity_blocks"], of.model.settings["dropout"])
    network = network.to(device, memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, eps=1e-7, fused=graphs or None)
    loss = nn.CrossEntropyLoss()
    mode = "reduce-overhead" if graphs else None
    forward = torch.compile(network, mode=mode) if compiled else network
    pixels, classes = images(n)
    x = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
    x, y = x.contiguous(memory_format=layout), torch.from_numpy(classes).to(device)

    def step(start: int) -> None:
        batch = slice(start, start + BATCH)
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad()
        loss(forward(x[batch]), y[batch]).backward()
        optimizer.step()

    return step
