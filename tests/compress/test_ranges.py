import numpy as np
import pytest

from compiler.compress.numerics import grid_of_range
from compiler.compress.observers import Observer
from compiler.compress.ranges import (
    METHODS,
    Entropy,
    LeastSquares,
    MinMax,
    MovingAverage,
    Percentile,
    method_named,
    squared_error,
)
from compiler.compress.scheme import Linear
from compiler.support.errors import InputError, UsageError

AFFINE = Linear(8, signed=False, symmetric=False)
LINEARS = [Linear(8), AFFINE, Linear(4, signed=False, symmetric=False), Linear(3), Linear(2)]


def draw(name, size=100_000):
    generator = np.random.default_rng(0)
    normal = generator.standard_normal(size)
    return {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "negative": -np.abs(normal) - 1,
        "laplace": generator.laplace(size=size),
        "outlier": np.append(normal, 1000),
        "one-sided tail": np.append(np.maximum(normal, -0.17), [30, 40, 50]),
        "constant": np.full(size, -2.5),
        "two values": np.repeat([0.0, 1.0], size // 2),
        "huge": normal * 1e37,
        "tiny": normal * 1e-30,
        "subnormal": normal * 1e-41,
        "zero": np.zeros(size),
        "few": normal[:7],
    }[name].astype(np.float32)


NAMES = [
    "normal", "relu", "negative", "laplace", "outlier", "one-sided tail", "constant", "two values", "huge",
    "tiny", "subnormal", "zero", "few",
]  # fmt: skip


def observed(values):
    observer = Observer()
    for part in np.array_split(values, min(4, len(values))):
        observer.update(part)
    return observer


def true_error(values, bounds, linear):
    grid = grid_of_range(*bounds, linear)
    return np.square(grid.decode(grid.encode(values)).astype(np.float64) - values).mean()


@pytest.mark.parametrize("name", NAMES)
def test_every_range_holds_zero_and_lies_within_what_was_seen(name):
    values = draw(name)
    observer = observed(values)
    for method in METHODS.values():
        for linear in LINEARS:
            low, high = method.range(observer, linear)
            assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)
            grid_of_range(low, high, linear)


def test_extremes_and_averages():
    observer = Observer()
    for extremes in ([-1, 2], [-3, 4]):
        observer.update(np.array(extremes))
    assert MinMax().range(observer, AFFINE) == (-3, 4)
    assert MovingAverage().range(observer, AFFINE) == (-2, 3)


@pytest.mark.parametrize("percent", [99.99, 99, 90, 100])
def test_percentiles_are_those_of_the_sorted_values(percent):
    values = draw("laplace")
    observer = observed(values)
    low, high = Percentile(percent).range(observer, AFFINE)
    expected = np.percentile(values, [100 - percent, percent])
    np.testing.assert_allclose((low, high), expected, atol=3 * observer.histogram.width)


def test_one_outlier_moves_extremes_but_not_percentiles_nor_entropy():
    observer = observed(draw("outlier"))
    assert MinMax().range(observer, AFFINE)[1] == 1000
    assert Percentile().range(observer, AFFINE)[1] < 5
    # 256 codes for as many bins of the 8192 or more that reach to 1000.
    assert Entropy().range(observer, AFFINE)[1] < 1000 * 256 / 8192


@pytest.mark.parametrize("linear", LINEARS, ids=str)
@pytest.mark.parametrize("name", ["normal", "relu", "laplace", "one-sided tail", "two values", "few"])
def test_the_estimated_error_is_the_true_one(name, linear):
    values = draw(name)
    bins = observed(values).histogram.bins()
    low, high = min(values.min(), 0), max(values.max(), 0)
    for factor in (1, 0.5, 0.1):
        bounds = (float(low * factor), float(high * factor))
        estimate, truth = squared_error(bins, bounds, linear), true_error(values, bounds, linear)
        # Within a bin, values are not spread quite evenly.
        assert abs(np.sqrt(estimate) - np.sqrt(truth)) <= 0.02 * np.sqrt(truth) + bins.width


@pytest.mark.parametrize("linear", LINEARS, ids=str)
@pytest.mark.parametrize("name", ["normal", "relu", "negative", "laplace", "outlier", "one-sided tail"])
def test_least_squares_is_as_good_as_trying_everything(name, linear):
    values = draw(name, 5000)
    chosen = LeastSquares().range(observed(values), linear)
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    factors = np.geomspace(1e-3, 1, 60)
    if linear.symmetric:
        tried = [(low * f, high * f) for f in factors]
    else:
        tried = [(low * f, high * g) for f in (factors[::4] if low else [1]) for g in factors[::2]]
    best = min(true_error(values, bounds, linear) for bounds in tried)
    assert true_error(values, chosen, linear) <= 1.05 * best


def classic_entropy(values, levels, bins=2048):
    """Migacz's pseudocode, slide by slide, with the bin of zero levelled; returns the threshold."""
    counts, edges = np.histogram(np.abs(values), bins=bins)
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    best, threshold = np.inf, edges[-1]
    for kept in range(levels, bins + 1, 16):
        reference = counts[:kept].copy()
        reference[-1] += counts[kept:].sum()
        candidate = np.zeros(kept)
        for part in np.array_split(np.arange(kept), levels):
            filled = part[counts[part] > 0]
            candidate[filled] = counts[part].sum() / max(len(filled), 1)
        occupied = reference > 0
        if not candidate[occupied].all():
            continue
        p, q = reference[occupied] / reference.sum(), candidate[occupied] / candidate.sum()
        divergence = (p * np.log(p / q)).sum()
        if divergence < best:
            best, threshold = divergence, edges[kept]
    return threshold


@pytest.mark.parametrize("name", ["relu", "laplace"])
def test_entropy_chooses_about_what_migacz_chooses(name):
    values = draw(name, 300_000)
    _, high = Entropy().range(observed(values), Linear(8))
    assert 0.75 < high / classic_entropy(values, 128) < 1.3
    # Where many values are cut by few codes, it matters more.
    _, high = Entropy().range(observed(values), Linear(4))
    assert 0.7 < high / classic_entropy(values, 8) < 1.4


def test_an_even_distribution_is_not_cut():
    observer = observed(np.linspace(-1, 1, 100_000, dtype=np.float32))
    for method in (LeastSquares(), Entropy()):
        low, high = method.range(observer, Linear(8))
        assert low < -0.97
        assert high > 0.97


def test_methods_by_name():
    for name, method in METHODS.items():
        assert method_named(name) == method
        assert method_named(str(method)) == method
    assert method_named("percentile:99.5") == Percentile(99.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entopy", "there is no calibration method 'entopy'; did you mean 'entropy'? (methods: minmax,"),
        ("mse:3", "there is no calibration method 'mse:3'; did you mean 'mse'?"),
        ("percentile:x", "expected a number such as percentile:99.9, got 'percentile:x'"),
        ("percentile:50", "expected a percentile above 50, up to 100, got 50"),
        ("percentile:nan", "expected a percentile above 50, up to 100, got nan"),
    ],
)
def test_methods_that_are_none(text, message):
    with pytest.raises(UsageError) as caught:
        method_named(text)
    assert str(caught.value).startswith(message)


def test_nothing_seen_gives_no_range():
    for method in METHODS.values():
        with pytest.raises(InputError, match="never computed; give calibration data"):
            method.range(Observer(), AFFINE)
