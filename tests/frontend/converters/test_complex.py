"""Fourier transforms, and complex tensors on the way to a real result."""

from __future__ import annotations

import pytest
import torch

from compiler.frontend import load
from compiler.support.errors import ModelError

from .harness import as_module, check

X = torch.randn(2, 6, 9)
CASES = {
    "magnitude": lambda x: torch.fft.rfft(x).abs(),
    "parts": lambda x: torch.view_as_real(torch.fft.rfft(x)),
    "real and imag": lambda x: (torch.fft.rfft(x).real, torch.fft.rfft(x).imag),
    "angle": lambda x: torch.fft.rfft(x + 3)[..., 1:4].angle(),
    "orthonormal": lambda x: torch.fft.rfft(x, norm="ortho").abs(),
    "other axis": lambda x: torch.fft.rfft(x, dim=1).abs(),
    "two axes": lambda x: torch.view_as_real(torch.fft.rfft2(x)),
    "full": lambda x: torch.view_as_real(torch.fft.fft(x)),
    "inverse": lambda x: torch.fft.irfft(torch.fft.rfft(x), n=9),
    "inverse even": lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=1), n=6, dim=1),
    "inverse two axes": lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=(6, 9)),
    "inverse full": lambda x: torch.fft.ifft(torch.fft.fft(x)).real,
    "filter": lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.complex(x[..., :5], x[..., 4:]), n=9),
    "scaled": lambda x: (torch.fft.rfft(x) * 0.5 + torch.fft.rfft(x.flip(2))).abs(),
    "conjugate": lambda x: torch.view_as_real(torch.fft.rfft(x).conj().resolve_conj()),
    "rotation": lambda x: torch.view_as_real(
        torch.view_as_complex(x[..., :8].contiguous().reshape(2, 6, 4, 2))
        * torch.complex(x[..., :4], x[..., 4:8])
    ),
    "spectrogram": lambda x: torch.stft(
        x[:, 0].repeat(1, 4), 8, 4, window=torch.hann_window(8), return_complex=True
    ).abs(),
}


@pytest.mark.parametrize("name", CASES)
def test_complex(name):
    check(CASES[name], (X,))


def test_zero_has_magnitude_zero():
    check(lambda x: torch.fft.rfft(x).abs(), (torch.zeros(1, 4),))


@pytest.mark.parametrize("function", [lambda x: torch.fft.rfft(x).exp().abs(), lambda x: torch.fft.rfft(x)])
def test_what_needs_real_complex_numbers_is_refused(function):
    with pytest.raises(ModelError):
        load(as_module(function), (X,))
