"""The quick half of the zoo, from import to numbers that equal PyTorch's. `make zoo` runs all of it."""

import pytest

from tests.conftest import needs
from tests.zoo.harness import TOLERANCE, take_through
from tests.zoo.models import ZOO

_PACKAGES = ("torchvision", "timm", "transformers")


@pytest.mark.parametrize("name", [entry.name for entry in ZOO.values() if entry.quick])
def test_quick_models_equal_pytorch(name, tmp_path):
    needs(*_PACKAGES, why="make setup")
    outcome = take_through(ZOO[name], tmp_path)
    assert outcome.error <= TOLERANCE
    assert sum(outcome.rules.values()) > 0


def test_the_zoo_holds_what_was_promised():
    """The list of the project's first issue; taking a model out is a decision, not an accident."""
    text = """
        resnet18 resnet50 mobilenet_v2 mobilenet_v3_large efficientnet_b0 shufflenet_v2_x1_0 squeezenet1_1
        densenet121 regnet_y_400mf convnext_tiny vit_b_16 swin_t deeplabv3_mobilenet_v3_large
        mobilevit_s ghostnet_100 levit_128s edgenext_small
        bert bert_mask distilbert distilbert_mask gpt2 gpt2_mask llama llama_mask t5_encoder whisper_encoder
        detr vit minilm unet_dynamic_size lstm gru conv1d conv3d grid_sample resnet18_dynamic_batch
    """
    promised = text.split()
    assert set(promised) <= set(ZOO)
    quick = [entry for entry in ZOO.values() if entry.quick]
    assert len(quick) >= len(ZOO) // 2
