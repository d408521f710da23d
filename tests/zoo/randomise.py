"""Gives a network parameters that hide nothing.

Freshly made networks have batch norm with mean 0 and variance 1, biases of 0, layer scales of 1e-6 and
sometimes a head of zeros: an importer that drops one of them still gives the right answer. Here all of
them count, while activations keep a healthy size in any depth.
"""

import torch
from torch import nn

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SCALES = ("layer_scale", "gamma", "lambda1")


def randomise(module: nn.Module, examples: tuple, seed: int = 0) -> nn.Module:
    """Return `module` in eval mode with random statistics, biases, norm weights and layer scales.

    Statistics of batch norm are those of `examples` in the layer, shifted and stretched at random.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    module.eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not parameter.is_floating_point():
                continue
            leaf = name.rsplit(".", 1)[-1]
            if any(word in name for word in _SCALES):
                parameter.copy_(uniform(parameter, 0.5, 1.0))
            elif "bias" in leaf:
                parameter.add_(uniform(parameter, -0.1, 0.1))
            elif parameter.ndim > 1 and not parameter.any():  # heads that start at zero
                parameter.copy_(uniform(parameter, -1.0, 1.0) / parameter.shape[-1] ** 0.5)
            elif parameter.ndim <= 1 and not parameter.any():
                # The last normalization of a residual branch, where the branch is meant to start small: at
                # full size deep stacks amplify rounding errors a thousandfold, in PyTorch as anywhere.
                parameter.copy_(uniform(parameter, 0.05, 0.15))
            elif parameter.ndim <= 1:  # weights of normalizations, PReLU slopes
                parameter.copy_(uniform(parameter, 0.7, 1.3))
        _measure_batch_norms(module, examples, uniform)
    return module


def _measure_batch_norms(module: nn.Module, examples: tuple, uniform) -> None:
    """Run `examples` and set every batch norm's statistics from what reaches it."""

    def measure(norm: nn.Module, arguments: tuple) -> None:
        x = arguments[0].transpose(0, 1).flatten(1)
        mean, variance = x.mean(1), x.var(1, unbiased=False)
        whole = x.var(unbiased=False)
        if x.shape[1] < 4:
            # So few values say nothing: their own mean would take the signal away and leave rounding errors.
            mean, variance = x.mean().expand_as(mean), whole.expand_as(variance)
        # A channel that hardly varies (after attention, say) must not have its rounding errors blown up.
        variance = variance.maximum(0.1 * mean**2).maximum(1e-3 * whole).clamp(min=1e-6)
        norm.running_mean.copy_(mean + uniform(mean, -0.3, 0.3) * variance.sqrt())
        norm.running_var.copy_(variance * uniform(variance, 0.7, 1.4))

    norms = [m for m in module.modules() if isinstance(m, _BATCH_NORMS) and m.running_mean is not None]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    try:
        if norms:
            module(*examples)
    finally:
        for hook in hooks:
            hook.remove()
