"""The study's residual network in PyTorch, for speed comparisons."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.sides import Turn, rate
from benchmarks.subjects import BATCH, images
from resnet.study import Experiment


def convolution(channels: int, filters: int, size: int, stride: int = 1) -> nn.Module:
    convolution = nn.Conv2d(channels, filters, size, stride, padding=size // 2)
    return nn.Sequential(convolution, nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int = 1):
        super().__init__()
        self.main = nn.Sequential(
            convolution(channels, filters, 1, stride),
            nn.ReLU(),
            convolution(filters, filters, 3),
            nn.ReLU(),
            convolution(filters, 4 * filters, 1),
        )
        same = stride == 1
        self.shortcut = nn.Identity() if same else convolution(channels, 4 * filters, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.shortcut(x))


def residual_network(identity_blocks: Sequence[int], dropout: float) -> nn.Module:
    """Builds a network that maps images (batch, 3, 32, 32) to logits (batch, 10)."""
    channels = 64
    layers = [convolution(3, channels, 3), nn.ReLU()]
    for filters, count in zip((16, 32, 64), identity_blocks, strict=True):
        if filters > 16:
            layers.append(Bottleneck(channels, filters, stride=2))
        channels = 4 * filters
        layers += [Bottleneck(channels, filters) for _ in range(count)]
    layers += [nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(4 * 4 * channels, 10))


def training(rung: Experiment, n: int, compiled: bool, device: str) -> Turn:
    """Returns a turn that trains on ``n`` images, which stay on ``device`` (``cpu`` or ``cuda``).

    ``compiled`` switches on Inductor, channels last, fused Adam and, on a GPU, CUDA graphs.
    """
    torch.backends.cuda.matmul.allow_tf32 = True  # JAX may use TF32 too
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if compiled else torch.contiguous_format
    settings = rung.model.settings
    network = residual_network(settings["identity_blocks"], settings["dropout"])
    network = network.to(device, memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, eps=1e-7, fused=compiled or None)
    loss = nn.CrossEntropyLoss()
    forward = torch.compile(network, mode="reduce-overhead") if compiled else network
    pixels, classes = images(n)
    x = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
    x, y = x.contiguous(memory_format=layout), torch.from_numpy(classes).to(device)

    def work() -> None:
        for start in range(0, n, BATCH):
            torch.compiler.cudagraph_mark_step_begin()  # has an effect only with CUDA graphs
            batch = slice(start, start + BATCH)
            optimizer.zero_grad()
            loss(forward(x[batch]), y[batch]).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return lambda: rate(n, work)
