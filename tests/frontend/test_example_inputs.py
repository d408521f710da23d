import pytest
import torch
from torch import nn

from compiler.frontend import load
from compiler.frontend.example_inputs import declared_examples


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (1, 3, 224, 224)),
        ("inception_v3", (1, 3, 299, 299)),
        ("efficientnet_b2", (1, 3, 288, 288)),
        ("lraspp_mobilenet_v3_large", (1, 3, 520, 520)),
        ("r3d_18", (1, 3, 16, 112, 112)),
    ],
)
def test_torchvision_declares_sizes_per_function(name, shape):
    models = pytest.importorskip("torchvision.models")
    options = {"weights": None, "weights_backbone": None} if "lraspp" in name else {"weights": None}
    with torch.device("meta"):
        module = models.get_model(name, **options)
    args, kwargs = declared_examples(module, name)
    assert tuple(args[0].shape) == shape
    assert not kwargs


def test_detection_models_declare_nothing():
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        module = models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    assert declared_examples(module, "ssdlite320_mobilenet_v3_large") is None


def test_timm_declares_its_input_size():
    timm = pytest.importorskip("timm")
    args, _ = declared_examples(timm.create_model("mobilevit_xxs"), "create_model")
    assert tuple(args[0].shape) == (1, 3, 256, 256)


def test_transformers_declare_by_their_main_input():
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=50, max_position_embeddings=24, **small))
    args, kwargs = declared_examples(bert)
    assert args == ()
    assert kwargs["input_ids"].shape == (1, 24)
    assert kwargs["input_ids"].max() < 50
    vit = transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **small))
    _, kwargs = declared_examples(vit)
    assert kwargs["pixel_values"].shape == (1, 3, 32, 32)


def test_a_cache_is_switched_off():
    transformers = pytest.importorskip("transformers")
    gpt = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    )
    for model in (load(gpt), load(gpt, {"input_ids": torch.ones(1, 4, dtype=torch.int64)})):
        assert [spec.name for spec in model.signature.outputs] == ["logits"]
        assert "input 'use_cache' is the constant False inside the library" in model.notes


def test_other_modules_declare_nothing():
    assert declared_examples(nn.Linear(4, 2)) is None
