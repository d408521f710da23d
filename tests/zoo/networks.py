"""Small networks of kinds that no model library is needed for."""

import torch
from torch import nn
from torch.nn import functional


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Two levels down, two up: transposed convolution once, bilinear resize once, skips concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.middle, self.bottom = _block(3, 8), _block(8, 16), _block(16, 32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.merge, self.last = _block(32, 16), _block(24, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top = self.top(x)
        middle = self.middle(functional.max_pool2d(top, 2))
        bottom = self.bottom(functional.avg_pool2d(middle, 2))
        middle = self.merge(torch.cat([self.up(bottom), middle], 1))
        wide = functional.interpolate(middle, size=top.shape[2:], mode="bilinear", align_corners=False)
        return self.head(self.last(torch.cat([wide, top], 1)))


class LSTM(nn.Module):
    """Two layers in both directions; gives the sequence and the last states."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(16, 24, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sequence, (hidden, cell) = self.rnn(x)
        return self.head(sequence), hidden, cell


class GRU(nn.Module):
    """One layer over a batch of sequences; gives a label for each."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(16, 24, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Conv1d(nn.Module):
    """Dilated and grouped convolutions over a signal, as in keyword spotting."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(16, 32, 5, padding=2, bias=False), nn.BatchNorm1d(32), nn.ReLU6(),
            nn.Conv1d(32, 32, 3, padding=2, dilation=2, groups=32), nn.BatchNorm1d(32), nn.SiLU(),
            nn.Conv1d(32, 48, 3, stride=2), nn.PReLU(48), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
            nn.Linear(48, 6),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Conv3d(nn.Module):
    """Convolutions over a short video."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(3, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(8, 16, 3, stride=(1, 2, 2)), nn.GELU(), nn.AvgPool3d((2, 1, 1)), nn.Flatten(),
            nn.LazyLinear(7),
        )  # fmt: skip
        self.body(torch.zeros(1, 3, 8, 16, 16))  # gives the lazy layer its size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Warp(nn.Module):
    """Samples a picture at moving places, then filters it (as in optical flow)."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        warped = functional.grid_sample(
            x, places.tanh(), mode="bilinear", padding_mode="border", align_corners=False
        )
        return self.filter(warped)
