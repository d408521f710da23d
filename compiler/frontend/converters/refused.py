"""Operators that have no faithful form in a library with fixed output shapes, and what to do instead."""

from __future__ import annotations

_DATA_SHAPE = "its output shape depends on the values of a tensor"
_RANDOM = "it draws random numbers, which differ from run to run; draw them outside and pass them as an input"
_SOLVER = (
    "it is a dense solver that TVM does not have; compute it outside of the model or fold it into a constant"
)
_COMPLEX = "it works on complex numbers, which TVM does not have; write it with real and imaginary parts"
_SCALAR = "it turns a tensor into a Python number, so the graph depends on data; keep it a tensor"

REFUSED: dict[str, str] = {
    "nonzero.default": f"{_DATA_SHAPE}; keep the mask and multiply or torch.where with it instead",
    "nonzero_static.default": f"{_DATA_SHAPE}; keep the mask and multiply or torch.where with it instead",
    "masked_select.default": f"{_DATA_SHAPE}; use torch.where with the mask instead",
    "masked_scatter.default": "the places depend on the mask's values; use torch.where with aligned values",
    "nms.default": f"{_DATA_SHAPE}; end the exported model at boxes and scores and run NMS after it",
    "_unique2.default": f"{_DATA_SHAPE}; compute unique values outside of the model",
    "unique_dim.default": f"{_DATA_SHAPE}; compute unique values outside of the model",
    "unique_consecutive.default": f"{_DATA_SHAPE}; compute unique values outside of the model",
    "bincount.default": f"{_DATA_SHAPE}; give a fixed number of bins and use scatter_add instead",
    "repeat_interleave.Tensor": f"{_DATA_SHAPE}; repeat by a fixed number instead",
    "item.default": f"{_SCALAR}",
    "_local_scalar_dense.default": f"{_SCALAR}",
    "median.default": "TVM has no median; sort and take the middle element",
    "median.dim": "TVM has no median; sort along the axis and take the middle element",
    "mode.default": "TVM has no mode; compute it outside of the model",
    "kthvalue.default": "TVM has no kthvalue; use topk or sort",
    "histc.default": "TVM has no histogram; use bucketize and scatter_add",
    **dict.fromkeys(
        (
            "rand.default",
            "randn.default",
            "randint.default",
            "randint.low",
            "rand_like.default",
            "randn_like.default",
            "randint_like.default",
            "randint_like.low_dtype",
            "bernoulli.p",
            "bernoulli.default",
            "multinomial.default",
            "normal.Tensor_Tensor",
            "normal.float_float",
            "randperm.default",
            "exponential.default",
            "uniform.default",
            "normal_functional.default",
            "rrelu_with_noise_functional.default",
            "poisson.default",
        ),
        _RANDOM,
    ),
    **dict.fromkeys(
        (
            "linalg_svd.default",
            "_linalg_svd.default",
            "_linalg_eigh.default",
            "linalg_eig.default",
            "linalg_cholesky_ex.default",
            "linalg_inv_ex.default",
            "_linalg_solve_ex.default",
            "linalg_qr.default",
            "_linalg_det.default",
            "_linalg_slogdet.default",
            "linalg_lu.default",
            "linalg_lstsq.default",
            "triangular_solve.default",
            "linalg_solve_triangular.default",
            "cholesky.default",
            "linalg_householder_product.default",
        ),
        _SOLVER,
    ),
    **dict.fromkeys(("linalg_eigvals.default", "polar.default"), _COMPLEX),
    "_fused_moving_avg_obs_fq_helper_functional.default": (
        "its observer changes the scale while the model runs; freeze it with "
        "compiler.frontend.converters.fake_quantize.freeze_fake_quantize"
    ),
    "_weight_norm_interface.default": "fold weight norm into the weight with remove_weight_norm",
}
