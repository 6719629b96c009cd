"""VGG-16 as object localisation uses it: no fully connected layers, no last pool, stages where SPA and SSA tap them.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015; the cut is that
of SPA (CVPR 2021; docs/localisation.md): each of the first four blocks ends in its pool, the fifth has none, so that
stages 4 and 5 are both at stride 16. Parameter names are torchvision's and timm's, so that their weights fit.

Deviation: stages 1 and 2 are tapped apart (SPA counts them as one). Stride 8 leaves out the fourth pool too
(wsolevaluation's large maps). Pools round up, so that images of any size pass.
"""

from __future__ import annotations

from torch import Tensor, nn

from tagmask.backbones.stages import Stages

NAME = "vgg16_wsol"
_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class Vgg16(nn.Module):
    """Images [B, 3, H, W] -> features of the five stages.

    Args:
        output_stride: 16, or 8.
        width: channels of the first block; the others are multiples of it (64: the published network).
    """

    def __init__(self, output_stride: int = 16, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.ends: list[int] = []
        inputs, pools = 3, 4 if output_stride == 16 else 3
        for number, (channels, convs) in enumerate(_BLOCKS):
            outputs = channels * width // 64
            for _ in range(convs):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            # Identity keeps the numbers of the layers behind it, which are the names of their weights.
            layers.append(nn.MaxPool2d(2, ceil_mode=True) if number < pools else nn.Identity())
            self.ends.append(len(layers) - 1)
        self.features = nn.ModuleList(layers)
        self.feature_info = Stages([channels * width // 64 for channels, _ in _BLOCKS])

    def forward(self, images: Tensor) -> list[Tensor]:
        """The five stages' features."""
        taps = []
        for number, layer in enumerate(self.features):
            images = layer(images)
            if number in self.ends:
                taps.append(images)
        return taps
