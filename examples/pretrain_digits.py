"""Pretrains the network of `mcugrad demo` on scikit-learn's digits and writes it as float ONNX."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mcugrad.digits import PREPROCESS, SIZE, digits

ASSET = Path(__file__).resolve().parent.parent / "src" / "mcugrad" / "assets" / "digits.onnx"
STEM = 8  # channels
BLOCKS = ((32, 16, 2), (48, 16, 1), (48, 16, 1), (48, 16, 1))  # expanded channels, output channels, stride


class ConvUnit(nn.Module):
    """Convolution, batch norm and, unless linear, ReLU6: [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, linear: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.act = nn.Identity() if linear else nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        return self.act(self.norm(self.conv(x)))

    def fold(self) -> None:
        """Moves the batch norm into the convolution's weight and bias."""
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class Block(nn.Module):
    """Inverted residual: expand 1x1, depthwise 3x3, project 1x1, and the input added where the shape stays."""

    def __init__(self, inputs: int, expanded: int, outputs: int, stride: int):
        super().__init__()
        self.expand = ConvUnit(inputs, expanded, 1)
        self.depthwise = ConvUnit(expanded, expanded, 3, stride, groups=expanded)
        self.project = ConvUnit(expanded, outputs, 1, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class DigitsNet(nn.Module):
    """[N, 1, SIZE, SIZE] with values 0 to 1, to 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (STEM, *(outputs for _, outputs, _ in BLOCKS))
        self.stem = ConvUnit(1, STEM, 3, stride=2)
        self.blocks = nn.Sequential(*(Block(i, *spec) for i, spec in zip(inputs, BLOCKS, strict=False)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        return self.head(self.pool(self.blocks(self.stem(x))).flatten(1))


def tensors(sensor: str, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x [N, 1, SIZE, SIZE] and y [N] of the training split, then of the test split."""
    data = digits(sensor, seed)
    (x, y), (x_test, y_test) = data.train, data.test
    images = [torch.from_numpy(PREPROCESS.apply(a)).permute(0, 3, 1, 2).contiguous() for a in (x, x_test)]
    return images[0], torch.from_numpy(y), images[1], torch.from_numpy(y_test)


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of [N, 1, H, W] moved by up to one pixel in both directions."""
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    corners = torch.randint(0, 3, (len(x), 2), generator=generator).tolist()
    return torch.stack([image[:, i : i + SIZE, j : j + SIZE] for image, (i, j) in zip(padded, corners, strict=True)])


def pretrain(seed: int, epochs: int) -> DigitsNet:
    """The network after `epochs` on the original sensor, in evaluation mode with every batch norm folded."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x, y, _, _ = tensors("original", seed)
    model = DigitsNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs=epochs, steps_per_epoch=-(-len(x) // 64))
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            loss = nn.functional.cross_entropy(model(shifted(x[batch], generator)), y[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    for module in list(model.modules()):
        if isinstance(module, ConvUnit):
            module.fold()
    return model


@torch.no_grad()
def accuracy(model: DigitsNet, sensor: str, seed: int = 0) -> float:
    """Fraction of the test split that is classified correctly."""
    _, _, x, y = tensors(sensor, seed)
    return float((model(x).argmax(1) == y).float().mean())


def export(model: DigitsNet, path: Path) -> None:
    """Writes the folded network as ONNX, opset 17, batch 1, weights inline."""
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, SIZE, SIZE),),
        path,
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
        dynamo=False,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=ASSET)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = pretrain(args.seed, args.epochs)
    export(model, args.output)
    print(f"original sensor {accuracy(model, 'original'):.1%}, changed sensor {accuracy(model, 'changed'):.1%}")
    print(f"{args.output}: {args.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
