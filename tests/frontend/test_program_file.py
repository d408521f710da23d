"""Reading a .pt2 file never runs what is inside it."""

import io
import json
import pickle
import random
import zipfile

import pytest
import torch
from torch import nn

from compiler.frontend import load
from compiler.frontend.program_file import _is_arithmetic, read_program
from compiler.support.errors import ModelError
from tests.conftest import SEED


class Explosive:
    """Unpickling it makes the file `marker`."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "good.pt2"
    size = {"input": {0: 2 * torch.export.Dim("n", min=2)}}
    torch.export.save(torch.export.export(nn.Linear(4, 2), (torch.randn(4, 4),), dynamic_shapes=size), path)
    return path


def rewritten(path, change):
    """Copy an archive with `change` applied to each (name, data)."""
    target = path.with_name("edited.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as edited:
        for name in source.namelist():
            for new_name, data in change(name, source.read(name)):
                edited.writestr(new_name, data)
    return target


def test_a_good_file_is_read(saved):
    assert load(saved).signature.inputs[0].shape == ("2*input_dim0", 4)


def test_a_size_that_is_code_is_refused(saved, tmp_path):
    marker = tmp_path / "marker"
    code = f"__import__('pathlib').Path('{marker}').touch()"

    def poison(value):
        if isinstance(value, dict):
            return {k: code if k == "expr_str" else poison(v) for k, v in value.items()}
        return [poison(v) for v in value] if isinstance(value, list) else value

    def change(name, data):
        yield name, json.dumps(poison(json.loads(data))).encode() if name.endswith("model.json") else data

    with pytest.raises(ModelError, match="a size that is not arithmetic"):
        read_program(rewritten(saved, change))
    assert not marker.exists()


@pytest.mark.parametrize("part", ["sample_inputs/model.pt", "weight"])
def test_pickled_code_among_the_tensors_is_not_run(saved, tmp_path, part):
    marker = tmp_path / "marker"
    buffer = io.BytesIO()
    torch.save({"x": Explosive(marker)}, buffer)

    def change(name, data):
        if name.endswith("model_weights_config.json"):
            config = json.loads(data)
            for entry in config["config"].values():
                entry["use_pickle"] = True
            data = json.dumps(config).encode()
        replaced = part in name and not name.endswith(".json")
        yield name, buffer.getvalue() if replaced else data

    with pytest.raises(ModelError, match="cannot read"):
        read_program(rewritten(saved, change))
    assert not marker.exists()


def test_pickled_objects_are_refused(saved, tmp_path):
    marker = tmp_path / "marker"

    def change(name, data):
        yield name, data
        if name.endswith("model.json"):
            yield f"{name.partition('/')[0]}/data/constants/opaque_obj_0", pickle.dumps(Explosive(marker))

    with pytest.raises(ModelError, match="pickled Python objects"):
        read_program(rewritten(saved, change))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("s0", True),
        ("2*s0 + 1", True),
        ("Mul(Integer(2), Symbol('s39', positive=True, integer=True))", True),
        ("Max(Integer(1), FloorDiv(Symbol('s0'), Integer(2)))", True),
        ("Float('1.5', precision=53)", True),
        ("Mul(Integer(-1), Symbol('s0'))", True),
        ("__import__('os').system('true')", False),
        ("S('__import__(1)')", False),
        ("Symbol('a').__class__", False),
        ("Integer('1')", False),
        ("Symbol('a b; c')", False),
        ("Symbol(*'a')", False),
        ("(lambda: 1)()", False),
        ("[1][0]", False),
        ("open('x')", False),
        ("Max('open(1)')", False),
        ("f'{1}'", False),
        ("", False),
        ("1 +", False),
    ],
)
def test_sizes_are_arithmetic_only(text, accepted):
    assert _is_arithmetic(text) is accepted


def test_damaged_files_give_one_line(saved, tmp_path):
    """Whatever is cut or changed: a program or a ModelError, never another exception."""
    data = saved.read_bytes()
    generator = random.Random(SEED)
    messages = []
    for trial in range(30):
        damaged = bytearray(data)
        if trial % 2:
            damaged = damaged[: generator.randrange(len(damaged))]
        else:
            for _ in range(20):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path = tmp_path / "damaged.pt2"
        path.write_bytes(damaged)
        try:
            read_program(path)
        except ModelError as error:
            messages.append(str(error))
    assert len(messages) >= 15
    assert not any("\n" in message for message in messages)


def test_a_file_that_is_no_archive(tmp_path):
    path = tmp_path / "text.pt2"
    path.write_text("hello")
    with pytest.raises(ModelError, match="damaged"):
        load(path)


def test_an_archive_that_is_no_program(tmp_path):
    path = tmp_path / "other.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match="cannot read"):
        load(path)
