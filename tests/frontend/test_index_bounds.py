import torch
from torch import nn

from compiler.frontend import load
from tests.frontend.helpers import assert_imported


class Tables(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 4)
        self.kinds = nn.Embedding(3, 4)

    def forward(self, words, kinds, count):
        flat = words.reshape(-1)[:4]
        return self.words(words) + self.kinds(kinds.unsqueeze(0)).squeeze(0), self.words(flat), count * 2


def test_token_ids_stay_inside_their_table():
    ids = torch.ones(2, 4, dtype=torch.int64)
    model = load(Tables(), (ids, ids, torch.tensor([5, 9])))
    assert model.ranges == {"words": (0, 49), "kinds": (0, 2)}
    assert_imported(model)


def test_the_users_range_comes_first():
    model = load(Tables(), inputs=["words=2x4:int64[7,9]", "kinds=2x4:int64", "count=1:int64"])
    assert model.ranges == {"words": (7, 9), "kinds": (0, 2)}
