"""From descriptor files to a `Target`: inheritance, defaults and validation.

A descriptor may extend another one (``extends: rpi4``, or a file beside it). Mappings are merged key by
key, every other value replaces the inherited one. `features` is either the complete list, or changes to
the inherited one: ``["+sve", "-lse"]``. A descriptor that names another `cpu` inherits no features: they
are then LLVM's for that CPU. Where `vector` is left out it follows from the features.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from compiler import target as model
from compiler.support.errors import TargetError, did_you_mean
from compiler.support.resources import data_folder
from compiler.target_isa import ARCHITECTURES, arch_of, vector_of, vocabulary
from compiler.target_yaml import KeyPath, read_yaml

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
"""What a name looks like that LLVM and file systems take as it is."""

MAX_ANCESTORS = 8
"""The longest chain of `extends`."""

Origins = dict[KeyPath, str]
"""Which file and line a value came from, in words."""


def read(path: Path) -> model.Target:
    """Return the target that the descriptor file `path` describes.

    Raises:
        TargetError: the file, or one that it extends, cannot be read or is wrong; file and line are named.
    """
    data, origins = _resolve(path, ())
    return validate(data, f"'{path}'", origins)


def validate(data: Mapping[str, Any], where: str, origins: Origins | None = None) -> model.Target:
    """Return the target that the descriptor `data` (nothing left to inherit) describes.

    `where` names the descriptor in messages, `origins` its single values.

    Raises:
        TargetError: naming the first wrong value.
    """
    from pydantic import ValidationError

    origins = origins or {}
    complete = _with_defaults(dict(data), _origin(("features",), where, origins))
    try:
        target: model.Target = _adapter().validate_json(json.dumps(complete))
    except ValidationError as error:
        raise TargetError(_sentence(error.errors(include_url=False), where, origins)) from error
    except (ValueError, RecursionError) as error:
        raise TargetError(f"{where} is not a target descriptor: {error}") from error
    _check_sense(target, where, origins)
    return target


def dump(target: model.Target, *, named: bool = True) -> str:
    """Return the descriptor of `target` as text that `read` takes, all defaults filled in.

    Without `named` it has no name: the file that it is saved in gives it one.
    """
    import yaml

    data = _plain(dataclasses.asdict(target))
    if not named:
        del data["name"]
    sources = {"sources": data.pop("sources", {})}

    def text(part: dict[str, Any], flow: bool | None) -> str:
        # `flow` None puts the innermost mappings and lists on one line, False nothing.
        return yaml.safe_dump(part, sort_keys=False, default_flow_style=flow, width=100, allow_unicode=True)

    return text(data, None) + (text(sources, False) if sources["sources"] else "")


_SIZES = frozenset({"l1d", "l2", "l3", "memory"})


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """Return `data` without what is not set, lists for tuples, and sizes of memory as ``32 KiB``."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and key != "sources":
            value = _plain(value)
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, int) and (key in _SIZES or "shared_memory" in key):
            value = _size(value)
        if value is not None and value not in ({}, []):
            result[key] = value
    return result


def _size(count: int) -> int | str:
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count and count % scale == 0:
            return f"{count // scale} {unit}"
    return count


@functools.lru_cache(maxsize=1)
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(model.Target)


# -- inheritance -------------------------------------------------------------------------------------


def _resolve(path: Path, children: tuple[Path, ...]) -> tuple[dict[str, Any], Origins]:
    """Return the data of `path` merged over what it extends."""
    try:
        here = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise TargetError(f"expected the path of a target descriptor, got {str(path)!r} ({error})") from error
    if here in children or len(children) >= MAX_ANCESTORS:
        chain = " -> ".join(child.name for child in (*children, here))
        what = "extends itself" if here in children else f"extends more than {MAX_ANCESTORS} others"
        raise TargetError(f"target descriptor '{children[0].name}' {what}: {chain}")
    data, lines = read_yaml(path)
    origins = {at: f"'{path}' line {line}" for at, line in lines.items()}
    data.setdefault("name", path.stem)
    if "extends" not in data:
        return data, origins
    base = data.pop("extends")
    if not isinstance(base, str) or not base:
        raise TargetError(
            f"{origins['extends',]}: expected the name of a target after 'extends', got {base!r}"
        )
    if base == model.HOST:
        parent = dataclasses.asdict(model.load(model.HOST))
        parent_origins: Origins = {}
    else:
        parent, parent_origins = _resolve(_find(base, path, origins["extends",]), (*children, here))
    data.setdefault("description", f"{base}, changed by {path.name}")
    data["sources"] = _sources(parent, data, path.name)
    # A list is replaced as a whole: the parent's items stand nowhere any more.
    kept = {
        at: line
        for at, line in parent_origins.items()
        if not (at and isinstance(at[-1], int) and at[:-1] in origins)
    }
    return _merge(_heritage(parent, data), data), kept | origins


def _find(base: str, path: Path, where: str) -> Path:
    if base.endswith((".yaml", ".yml")):
        return path.parent / base
    if base not in model.names():
        near = did_you_mean(base, model.names())
        raise TargetError(f"{where}: cannot extend the unknown target '{base}'{near}")
    return data_folder("targets") / f"{base}.yaml"


def _heritage(parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """Return what `child` inherits: no features of another CPU, no vector of other features."""
    heritage = dict(parent)
    same_cpu = all(child.get(key, parent.get(key)) == parent.get(key) for key in ("cpu", "triple"))
    if not same_cpu:
        heritage.pop("features", None)
    if not same_cpu or "features" in child:
        heritage.pop("vector", None)
    return heritage


def _merge(parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    merged = dict(parent)
    for key, value in child.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merge(old, value)
        elif key == "features" and _signed(value) and _words(old):
            merged[key] = list(old or ()) + value
        else:
            merged[key] = value
    return merged


def _sources(parent: dict[str, Any], child: dict[str, Any], file: str) -> Any:
    """Return the sources of `child`: a number that it changes no longer comes from the parent's source."""
    own = child.get("sources", {})
    known = parent.get("sources", {})
    if not isinstance(own, dict) or not isinstance(known, dict):
        return own
    changed = {
        dotted: file
        for dotted in _dotted({key: value for key, value in child.items() if key != "sources"})
        if any(dotted == key or dotted.startswith(f"{key}.") for key in known)
    }
    return changed | own


def _dotted(data: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


# -- defaults ----------------------------------------------------------------------------------------


def _with_defaults(data: dict[str, Any], place: str) -> dict[str, Any]:
    """Fill in `features` (which stand at `place`) and `vector`; wrong types are left to the schema."""
    triple, cpu = data.get("triple"), data.get("cpu")
    features = data.get("features")
    if not isinstance(triple, str) or not isinstance(cpu, str) or not (features is None or _words(features)):
        return data
    arch = arch_of(triple)
    usable = arch in ARCHITECTURES and _WORD.fullmatch(triple) and _WORD.fullmatch(cpu)
    if usable and (features is None or (features and features[0][:1] in "+-")):
        from compiler.target_tvm import llvm_features

        features = sorted(llvm_features(triple, cpu) & vocabulary(arch)) + list(features or ())
    data["features"] = _apply_signs(list(features or ()), arch, place) if usable else []
    if "vector" not in data:
        bits, registers = vector_of(arch, data["features"])
        data["vector"] = {"bits": bits, "registers": registers}
    return data


def _words(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) and item for item in value)


def _signed(value: Any) -> bool:
    return bool(_words(value) and value and all(item[0] in "+-" for item in value))


def _apply_signs(features: list[str], arch: str, place: str) -> list[str]:
    """Return the plain list that a list with ``+name`` and ``-name`` in it stands for.

    Raises:
        TargetError: plain names follow signed ones, or a feature is taken away that is not there.
    """
    wrong = f"wrong value of 'features' in {place}:"
    plain: list[str] = []
    for index, word in enumerate(features):
        name = word.lstrip("+-")
        if word[0] == "-" and name not in plain:
            near = did_you_mean(name, vocabulary(arch))
            raise TargetError(f"{wrong} cannot take away '{name}': the CPU does not have it{near}")
        if word[0] not in "+-" and any(earlier[0] in "+-" for earlier in features[:index]):
            raise TargetError(
                f"{wrong} expected either the complete list or only '+name' and '-name', got '{word}' after "
                f"'{features[index - 1]}'"
            )
        plain = [other for other in plain if other != name] + ([] if word[0] == "-" else [name])
    return plain


# -- messages ----------------------------------------------------------------------------------------


def _sentence(errors: list[Any], where: str, origins: Origins) -> str:
    """Return one line about the first of pydantic's `errors`, unknown keys first."""
    errors = sorted(errors, key=lambda error: error["type"] != "unexpected_keyword_argument")
    first = errors[0]
    at: KeyPath = tuple(first["loc"])
    place = _origin(at, where, origins)
    key = ".".join(map(str, at))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "unexpected_keyword_argument":
        near = did_you_mean(str(at[-1]), _keys_at(at[:-1]))
        return f"unknown key '{key}' in {place}{near}{more}"
    if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"missing key '{key}' in {place}{more}"
    expected = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"wrong value of '{key}' in {place}: expected {expected}, got {_shown(first['input'])}{more}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _origin(at: KeyPath, where: str, origins: Origins) -> str:
    """Return file and line of the value at `at`, or of the nearest mapping around it."""
    for length in range(len(at), 0, -1):
        if at[:length] in origins:
            return origins[at[:length]]
    return where


def _keys_at(at: KeyPath) -> list[str]:
    """Return the keys that the schema knows in the mapping at `at`."""
    kind: Any = model.Target
    for key in at:
        hints = typing.get_type_hints(kind)
        options = typing.get_args(hints.get(str(key))) or (hints.get(str(key)),)
        kind = next((option for option in options if dataclasses.is_dataclass(option)), None)
        if kind is None:
            return []
    keys = [field.name for field in dataclasses.fields(kind)]
    return keys if at else [*keys, "extends"]


def _check_sense(target: model.Target, where: str, origins: Origins) -> None:
    """Check what single values do not show.

    Raises:
        TargetError: naming the first contradiction.
    """
    for key, text in _contradictions(target):
        place = _origin(tuple(key.split(".")), where, origins)
        raise TargetError(f"wrong value of '{key}' in {place}: {text}")


def _contradictions(target: model.Target) -> Iterable[tuple[str, str]]:
    """Yield the key and what is wrong with it."""
    words = [("name", target.name), ("triple", target.triple), ("cpu", target.cpu)]
    for key, word in [*words, *(("features", word) for word in target.features)]:
        if not _WORD.fullmatch(word):
            yield key, f"expected letters, digits and '._+-', got {_shown(word)}"
    if target.arch not in ARCHITECTURES:
        yield "triple", f"expected one that begins with {', '.join(ARCHITECTURES)}, got '{target.triple}'"
    if target.vector.bits & (target.vector.bits - 1):
        yield "vector.bits", f"expected a power of two, got {target.vector.bits}"
    gpu = target.accelerator
    if (gpu is None) != (target.kind == "cpu"):
        needs = "an 'accelerator'" if gpu is None else "no 'accelerator'"
        yield "kind", f"a target of kind '{target.kind}' has {needs}"
    if gpu is not None and target.kind == "cuda" and not re.fullmatch(r"sm_\d{2,3}[af]?", gpu.arch):
        yield "accelerator.arch", f"expected an architecture such as 'sm_87', got '{gpu.arch}'"
    for key in target.sources:
        *parents, last = key.split(".")
        known = _keys_at(tuple(parents))
        if last not in known:
            yield "sources", f"no field is called '{key}'{did_you_mean(last, known)}"
