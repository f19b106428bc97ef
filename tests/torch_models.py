"""Compact PyTorch networks of the families that people bring: small, untrained, in evaluation mode."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] = nn.ReLU6):
    """Convolution without bias, batch norm and an activation."""
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, act())


class InvertedResidual(nn.Module):
    """Expand, depthwise, (squeeze-and-excite), project; the input is added where shapes agree."""

    def __init__(self, inputs, outputs, expand, kernel=3, stride=1, act=nn.ReLU6, squeeze=False):
        super().__init__()
        hidden = inputs * expand
        parts = [conv(inputs, hidden, 1, act=act)] if expand > 1 else []
        parts.append(conv(hidden, hidden, kernel, stride, hidden, act))
        if squeeze:
            parts.append(SqueezeExcite(hidden))
        parts.append(conv(hidden, outputs, 1, act=nn.Identity))
        self.body = nn.Sequential(*parts)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skip else self.body(x)


class SqueezeExcite(nn.Module):
    """Channels weighted by a hard sigmoid of two 1x1 layers on their means (MobileNetV3)."""

    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, max(channels // 4, 4), 1), nn.Conv2d(max(channels // 4, 4), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.up(gate))


class Classifier(nn.Module):
    """Features, global average, dropout and one linear layer."""

    def __init__(self, features, channels, classes=10):
        super().__init__()
        self.features, self.drop, self.fc = features, nn.Dropout(0.2), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)))


def mobilenet_v2(classes=10):
    blocks = [(8, 1, 1), (12, 3, 2), (12, 3, 1), (16, 3, 2), (16, 3, 1), (24, 3, 2)]
    layers, width = [conv(3, 8, stride=2)], 8
    for outputs, expand, stride in blocks:
        layers.append(InvertedResidual(width, outputs, expand, stride=stride))
        width = outputs
    return Classifier(nn.Sequential(*layers, conv(width, 48, 1)), 48, classes)


def mobilenet_v3_small(classes=10):
    """(outputs, expansion, kernel, stride, activation, squeeze-and-excite) per block, hard swish in the later ones."""
    blocks = [
        (8, 1, 3, 2, nn.ReLU, True), (12, 3, 3, 2, nn.ReLU, False), (12, 3, 3, 1, nn.ReLU, False),
        (16, 3, 5, 2, nn.Hardswish, True), (16, 3, 5, 1, nn.Hardswish, True),
    ]  # fmt: skip
    layers, width = [conv(3, 8, stride=2, act=nn.Hardswish)], 8
    for outputs, expand, kernel, stride, act, squeeze in blocks:
        layers.append(InvertedResidual(width, outputs, expand, kernel, stride, act, squeeze))
        width = outputs
    return Classifier(nn.Sequential(*layers, conv(width, 48, 1, act=nn.Hardswish)), 48, classes)


def efficientnet_lite0(classes=10):
    """MobileNetV2's blocks with 5x5 kernels, no squeeze-and-excite, ReLU6."""
    blocks = [(8, 1, 3, 1), (12, 4, 3, 2), (16, 4, 5, 2), (16, 4, 5, 1), (24, 4, 3, 2), (24, 4, 5, 1)]
    layers, width = [conv(3, 16, stride=2)], 16
    for outputs, expand, kernel, stride in blocks:
        layers.append(InvertedResidual(width, outputs, expand, kernel, stride))
        width = outputs
    return Classifier(nn.Sequential(*layers, conv(width, 64, 1)), 64, classes)


class Fire(nn.Module):
    """SqueezeNet: a 1x1 layer, then 1x1 and 3x3 layers side by side."""

    def __init__(self, inputs, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.small, self.large = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.small(x)), F.relu(self.large(x))], 1)


def squeezenet(classes=10):
    """Without a fully connected layer: the last convolution gives the classes, averaged over the map."""
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    features = [nn.Conv2d(3, 16, 3, 2), nn.ReLU(), pool, Fire(16, 4, 16), Fire(32, 4, 16), pool, Fire(32, 8, 24)]
    last = [nn.Dropout(), nn.Conv2d(48, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*features, *last)


def vibration_1d(classes=10):
    """A one-dimensional network for signals [1, 1024] with a wide first kernel."""
    layers, width = [nn.Conv1d(1, 8, 64, 8, 28), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)], 8
    for outputs in (16, 32):
        layers += [nn.Conv1d(width, outputs, 3, padding=1), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(2)]
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, classes))


def mlp(classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, classes))


class DenseLayer(nn.Module):
    """Batch norm, ReLU, convolution; its result joins the channels of its input."""

    def __init__(self, inputs, growth):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


def densenet(classes=10):
    """Two dense blocks with a transition between them."""
    first = [nn.Conv2d(3, 8, 3, padding=1, bias=False), DenseLayer(8, 4), DenseLayer(12, 4)]
    between = [nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2)]
    second = [DenseLayer(8, 4), DenseLayer(12, 4), nn.BatchNorm2d(16), nn.ReLU()]
    return Classifier(nn.Sequential(*first, *between, *second), 16, classes)


class UNet(nn.Module):
    """An autoencoder with a skip connection across the bottleneck: as many outputs as inputs."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = conv(1, 8, act=nn.ReLU), conv(8, 16, stride=2, act=nn.ReLU)
        self.up, self.last = conv(24, 8, act=nn.ReLU), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        wide = F.interpolate(self.down2(first), scale_factor=2, mode="nearest")
        return torch.sigmoid(self.last(self.up(torch.cat([first, wide], 1))))


class BasicBlock(nn.Module):
    """ResNet's block; option A: the shortcut takes every second pixel and pads channels with zeros."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(y + x)


class ResNet20(nn.Module):
    """The CIFAR network of the paper, its parameters named as in the published checkpoint."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = self._stage(16, 16, 1), self._stage(16, 32, 2), self._stage(32, 64, 2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(inputs, outputs, stride):
        first = BasicBlock(inputs, outputs, stride)
        return nn.Sequential(first, BasicBlock(outputs, outputs, 1), BasicBlock(outputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.avg_pool2d(x, x.shape[3])
        return self.linear(x.view(x.shape[0], -1))


INPUTS = {
    "mobilenet_v2": (1, 3, 32, 32),
    "mobilenet_v3_small": (1, 3, 32, 32),
    "efficientnet_lite0": (1, 3, 32, 32),
    "squeezenet": (1, 3, 32, 32),
    "vibration_1d": (1, 1, 1024),
    "mlp": (1, 64),
    "densenet": (1, 3, 16, 16),
    "unet": (1, 1, 16, 16),
    "resnet20": (1, 3, 32, 32),
}
BUILDERS = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_small": mobilenet_v3_small,
    "efficientnet_lite0": efficientnet_lite0,
    "squeezenet": squeezenet,
    "vibration_1d": vibration_1d,
    "mlp": mlp,
    "densenet": densenet,
    "unet": UNet,
    "resnet20": ResNet20,
}


def build(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A seeded network with batch norms of some history, in evaluation mode, and an example input."""
    torch.manual_seed(seed)
    module, x = BUILDERS[name](), torch.randn(INPUTS[name])
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return module.eval(), x
