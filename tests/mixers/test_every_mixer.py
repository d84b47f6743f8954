"""What every mixer promises by its type. The list is in zoo.py; a new mixer is added there and inherits it all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from linocut import mixers
from mixers.work import count_work
from mixers.zoo import LINEAR_EXCEPTIONS, ZOO

D_MODEL, LENGTH = 12, 63
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
CUTS = [(1,), (31,), (16, 32, 48), tuple(range(1, LENGTH))]


def of_kind(kind: type[mixers.Mixer]) -> list[tuple[str, bool]]:
    found = {(cls.info.name, cls.info.causal): cls for cls in mixers.classes()}
    return sorted(key for key in ZOO if issubclass(found[key], kind))


def called(key: tuple[str, bool]) -> str:
    return key[0] + ("-causal" if key[1] else "")


every_mixer = pytest.mark.parametrize("key", sorted(ZOO), ids=called)
every_set = pytest.mark.parametrize("key", of_kind(mixers.SetMixer), ids=called)
every_ordered = pytest.mark.parametrize("key", of_kind(mixers.OrderedMixer), ids=called)
every_local = pytest.mark.parametrize("key", of_kind(mixers.LocalMixer), ids=called)
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
all_cuts = pytest.mark.parametrize("cuts", CUTS, ids=["first", "middle", "quarters", "every token"])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The same random numbers each time, and no trace of it afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def build(key: tuple[str, bool], dtype: torch.dtype = torch.float64) -> Any:
    """The mixer with random parameters, also those that start at zero or one."""
    name, causal = key
    with seeded(0):
        mixer = mixers.build(name, D_MODEL, causal=causal, **ZOO[key]).to(torch.float64).eval()
        for parameter in mixer.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return mixer.to(dtype)


def tokens(length: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    with seeded(seed):
        return torch.randn(2, length, D_MODEL, dtype=torch.float64).to(dtype)


def flat(state: Any) -> list[Tensor]:
    """The tensors of a nested tuple, in order."""
    if isinstance(state, Tensor):
        return [state]
    return [tensor for part in state for tensor in flat(part)] if isinstance(state, tuple) else []


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


def merged(mixer: mixers.SetMixer, x: Tensor, cuts: Sequence[int]) -> Tensor:
    """Every piece summarised alone, the summaries merged, every piece read alone."""
    pieces = x.tensor_split(tuple(cuts), dim=1)
    summary = mixer.summarize(pieces[0])
    for piece in pieces[1:]:
        summary = mixer.merge(summary, mixer.summarize(piece))
    return torch.cat([mixer.read(piece, summary) for piece in pieces], dim=1)


def chunked(mixer: mixers.OrderedMixer, x: Tensor, cuts: Sequence[int]) -> Tensor:
    """One piece after another, the state handed on."""
    state, outputs = mixer.init_state(x.shape[0]), []
    for piece in x.tensor_split(tuple(cuts), dim=1):
        y, state = mixer.scan(piece, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1)


def stepped(mixer: mixers.OrderedMixer, x: Tensor) -> Tensor:
    """One token after another."""
    state, outputs = mixer.init_state(x.shape[0]), []
    for x_t in x.unbind(dim=1):
        y, state = mixer.step(x_t, state)
        outputs.append(y)
    return torch.stack(outputs, dim=1)


def distributed(mixer: mixers.OrderedMixer, x: Tensor, cuts: Sequence[int]) -> Tensor:
    """Every piece summarised alone, its start worked out from the maps before it, every piece scanned alone."""
    edges = [0, *cuts, x.shape[1]]
    spans = list(pairwise(edges))
    maps = [mixer.summarize(x[:, i:j], x[:, max(0, i - mixer.halo) : i] if i else None) for i, j in spans]
    first, outputs, before = mixer.init_state(x.shape[0]), [], None
    for (i, j), piece_map in zip(spans, maps, strict=True):
        state = first if before is None else mixer.advance(first, before)
        outputs.append(mixer.scan(x[:, i:j], state)[0])
        before = piece_map if before is None else mixer.compose(before, piece_map)
    return torch.cat(outputs, dim=1)


def gradients(mixer: mixers.Mixer, x: Tensor, form: Any) -> list[Tensor]:
    x = x.clone().requires_grad_()
    parameters = [p for p in mixer.parameters() if p.requires_grad]
    grads = torch.autograd.grad(form(x).square().sum(), [x, *parameters], allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip([x, *parameters], grads, strict=True)]


def test_the_list_is_complete() -> None:
    assert sorted(ZOO) == sorted((cls.info.name, cls.info.causal) for cls in mixers.classes())


# every mixer


@every_mixer
@dtypes
@pytest.mark.parametrize("length", [0, 1, 2, LENGTH])
def test_the_shape_is_kept(key: tuple[str, bool], dtype: torch.dtype, length: int) -> None:
    out = build(key, dtype)(tokens(length, dtype))
    assert out.shape == (2, length, D_MODEL)
    assert out.dtype == dtype
    assert out.isfinite().all()


@every_mixer
def test_native_and_reference_agree(key: tuple[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, x = build(key, torch.float32), tokens(200, torch.float32)
    results = []
    for setting in ("0", "1"):
        monkeypatch.setenv("LINOCUT_NATIVE", setting)
        results.append([mixer(x), *gradients(mixer, x, mixer)])
    for reference, native in zip(*results, strict=True):
        close(native, reference, torch.float32)


@every_mixer
def test_bfloat16_stays_near(key: tuple[str, bool]) -> None:
    mixer, x = build(key, torch.float32), tokens(LENGTH, torch.float32)
    expected = mixer(x)
    out = mixer.bfloat16()(x.bfloat16())
    assert out.dtype == torch.bfloat16
    scale = expected.abs().max().item()
    assert (out.float() - expected).abs().mean().item() < 0.05 * scale


@every_mixer
def test_the_members_of_a_batch_do_not_see_each_other(key: tuple[str, bool]) -> None:
    mixer, x = build(key), tokens(LENGTH)
    close(mixer(x)[:1], mixer(x[:1]), torch.float64)


@every_mixer
def test_inputs_need_not_be_contiguous(key: tuple[str, bool]) -> None:
    mixer, x = build(key, torch.float32), tokens(LENGTH, torch.float32)
    turned = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    close(mixer(turned), mixer(x), torch.float32)


@every_mixer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["kernel", "reference"])
def test_nan_propagates(key: tuple[str, bool], dtype: torch.dtype) -> None:
    mixer, x = build(key, dtype), tokens(LENGTH, dtype)
    x[0, 20, 3] = torch.nan
    out = mixer(x)
    assert out[0, 20].isnan().any()
    assert out[1].isfinite().all()
    if key[1]:
        assert out[0, :20].isfinite().all()


@every_mixer
def test_other_shapes_are_refused(key: tuple[str, bool]) -> None:
    mixer = build(key)
    for x in (torch.zeros(2, 5, D_MODEL + 1, dtype=torch.float64), torch.zeros(5, D_MODEL, dtype=torch.float64)):
        with pytest.raises(ValueError, match=rf"{key[0]} takes \(batch, length, {D_MODEL}\), got "):
            mixer(x)


@every_mixer
def test_other_dtypes_are_refused(key: tuple[str, bool]) -> None:
    mixer = build(key, torch.float32)
    wrong: list[tuple[Any, str]] = [
        (torch.zeros(2, 5, D_MODEL).numpy(), "takes a torch.Tensor, got numpy.ndarray; torch.as_tensor"),
        (torch.zeros(2, 5, D_MODEL, dtype=torch.long), r"takes floating-point numbers, got torch.int64; x.float\(\)"),
        (torch.zeros(2, 5, D_MODEL).double(), r"has parameters of torch.float32 .*, got torch.float64; x.to"),
    ]
    for x, words in wrong:
        with pytest.raises(TypeError, match=f"{key[0]} {words}"):
            mixer(x)
    if isinstance(mixer, mixers.OrderedMixer):
        with pytest.raises(TypeError, match=f"{key[0]} takes floating-point numbers, got torch.int64"):
            mixer.step(torch.zeros(2, D_MODEL, dtype=torch.long), mixer.init_state(2))


def other_calls(mixer: mixers.Mixer) -> list[tuple[str, Any, Tensor]]:
    """What a mixer is called through besides itself: the name, the call, and an input that it takes."""
    x = tokens(5)
    if isinstance(mixer, mixers.SetMixer):
        summary = mixer.summarize(x)
        return [("summarize", mixer.summarize, x), ("read", lambda x: mixer.read(x, summary), x)]
    if isinstance(mixer, mixers.OrderedMixer):
        state = mixer.init_state(2)
        return [
            ("summarize", mixer.summarize, x),
            ("scan", lambda x: mixer.scan(x, state), x),
            ("step", lambda x: mixer.step(x, state), x[:, 0]),
        ]
    return []


@pytest.mark.parametrize("key", sorted({*of_kind(mixers.SetMixer), *of_kind(mixers.OrderedMixer)}), ids=called)
def test_other_shapes_are_refused_by_every_method(key: tuple[str, bool]) -> None:
    mixer = build(key)
    for name, call, good in other_calls(mixer):
        call(good)
        takes = rf"\.step takes \(batch, {D_MODEL}\)" if name == "step" else rf" takes \(batch, length, {D_MODEL}\)"
        for bad in (good[..., 1:], good[..., :1], torch.cat([good, good], dim=-1), good[0], good[:, None]):
            with pytest.raises(ValueError, match=rf"^{key[0]}{takes}, got {re.escape(str(tuple(bad.shape)))}$"):
                call(bad)


@every_mixer
@pytest.mark.parametrize("length", [0, 7, 300])
def test_an_empty_batch_is_mixed(key: tuple[str, bool], length: int) -> None:
    mixer = build(key, torch.float32)
    x = torch.zeros(0, length, D_MODEL, requires_grad=True)
    out = mixer(x)
    assert out.shape == (0, length, D_MODEL)
    assert out.dtype == torch.float32
    parameters = [p for p in mixer.parameters() if p.requires_grad]
    grad_x, *grads = torch.autograd.grad(out.sum(), [x, *parameters], allow_unused=True)
    assert grad_x is None or grad_x.shape == x.shape
    assert all(grad is None or not grad.any() for grad in grads)


@every_ordered
def test_an_empty_batch_is_stepped(key: tuple[str, bool]) -> None:
    mixer = build(key, torch.float32)
    with torch.no_grad():
        state = mixer.init_state(0)
        for _ in range(2):
            y, state = mixer.step(torch.zeros(0, D_MODEL), state)
            assert y.shape == (0, D_MODEL)


@every_mixer
def test_the_work_is_as_the_table_says(key: tuple[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Products and elements that the PyTorch form makes: linear in the length, or named as an exception."""
    monkeypatch.setenv("LINOCUT_NATIVE", "0")
    mixer = build(key)
    counts = [count_work(lambda n=n: mixer(tokens(n))) for n in (512, 1024, 2048)]
    growth = (counts[2] - counts[1]) / (counts[1] - counts[0])
    if key in LINEAR_EXCEPTIONS:
        assert growth > 2.2, "it is linear: take it off the list of exceptions"
    else:
        assert growth < 2.1


@pytest.mark.parametrize("key", sorted(key for key in ZOO if key[1]), ids=called)
def test_the_past_does_not_see_the_future(key: tuple[str, bool]) -> None:
    mixer, x = build(key), tokens(LENGTH)
    before = mixer(x)
    for t in (0, 1, 30, 31, 32, LENGTH - 1):
        changed = x.clone()
        changed[:, t:] += 1
        after = mixer(changed)
        close(after[:, :t], before[:, :t], torch.float64)
        assert ((after[:, t] - before[:, t]).abs().amax(dim=-1) > 1e-9).all()


# sets


@every_set
@dtypes
@all_cuts
def test_pieces_merged_are_the_whole(key: tuple[str, bool], dtype: torch.dtype, cuts: tuple[int, ...]) -> None:
    mixer, x = build(key, dtype), tokens(LENGTH, dtype)
    close(merged(mixer, x, cuts), mixer(x), dtype)


@every_set
def test_gradients_of_pieces_are_those_of_the_whole(key: tuple[str, bool]) -> None:
    mixer, x = build(key), tokens(LENGTH)
    whole = gradients(mixer, x, mixer)
    for a, b in zip(gradients(mixer, x, lambda x: merged(mixer, x, (1, 20, 40))), whole, strict=True):
        close(a, b, torch.float64)


@every_set
def test_the_order_of_merging_does_not_matter(key: tuple[str, bool]) -> None:
    mixer, x = build(key), tokens(LENGTH)
    a, b, c = (mixer.summarize(piece) for piece in x.tensor_split((10, 30), dim=1))
    results = [
        mixer.read(x, summary)
        for summary in (
            mixer.merge(mixer.merge(a, b), c),
            mixer.merge(a, mixer.merge(b, c)),
            mixer.merge(c, mixer.merge(b, a)),
        )
    ]
    for other in results[1:]:
        close(other, results[0], torch.float64)


@every_set
def test_a_permutation_of_the_tokens_permutes_the_outputs(key: tuple[str, bool]) -> None:
    mixer, x = build(key), tokens(LENGTH)
    with seeded(2):
        order = torch.randperm(LENGTH)
    close(mixer(x[:, order]), mixer(x)[:, order], torch.float64)


@every_set
def test_every_token_reaches_every_other(key: tuple[str, bool]) -> None:
    mixer, x = build(key), tokens(LENGTH)
    before = mixer(x)
    x[:, -1] += 1
    assert ((mixer(x) - before).abs().amax(dim=-1) > 1e-12).all()


# ordered


@every_ordered
@dtypes
@all_cuts
def test_chunks_are_the_whole(key: tuple[str, bool], dtype: torch.dtype, cuts: tuple[int, ...]) -> None:
    mixer, x = build(key, dtype), tokens(LENGTH, dtype)
    close(chunked(mixer, x, cuts), mixer(x), dtype)


@every_ordered
@dtypes
@all_cuts
def test_pieces_apart_are_the_whole(key: tuple[str, bool], dtype: torch.dtype, cuts: tuple[int, ...]) -> None:
    mixer, x = build(key, dtype), tokens(LENGTH, dtype)
    close(distributed(mixer, x, cuts), mixer(x), dtype)


@every_ordered
@dtypes
def test_steps_are_the_whole(key: tuple[str, bool], dtype: torch.dtype) -> None:
    mixer, x = build(key, dtype), tokens(LENGTH, dtype)
    close(stepped(mixer, x), mixer(x), dtype)
    with torch.no_grad():
        close(stepped(mixer, x), mixer(x), dtype)


@every_ordered
def test_gradients_agree_in_every_form(key: tuple[str, bool]) -> None:
    mixer, x = build(key), tokens(LENGTH)
    whole = gradients(mixer, x, mixer)
    forms = (
        lambda x: chunked(mixer, x, (1, 20, 40)),
        lambda x: stepped(mixer, x),
        lambda x: distributed(mixer, x, (1, 20, 40)),
    )
    for form in forms:
        for a, b in zip(gradients(mixer, x, form), whole, strict=True):
            close(a, b, torch.float64)


@every_ordered
def test_native_gradients_of_chunks_are_those_of_the_whole(key: tuple[str, bool]) -> None:
    mixer, x = build(key, torch.float32), tokens(LENGTH, torch.float32)
    whole = gradients(mixer, x, mixer)
    for a, b in zip(gradients(mixer, x, lambda x: chunked(mixer, x, (1, 20, 40))), whole, strict=True):
        close(a, b, torch.float32)


@every_ordered
def test_composition_is_associative(key: tuple[str, bool]) -> None:
    mixer, x = build(key), tokens(LENGTH)
    h = mixer.halo
    a, b, c = (
        mixer.summarize(x[:, i:j], x[:, max(0, i - h) : i] if i else None) for i, j in ((0, 10), (10, 12), (12, 40))
    )
    state = mixer.scan(tokens(7, seed=3), mixer.init_state(2))[1]
    left = mixer.advance(state, mixer.compose(mixer.compose(a, b), c))
    right = mixer.advance(state, mixer.compose(a, mixer.compose(b, c)))
    for one, other in zip(flat(left), flat(right), strict=True):
        close(one, other, torch.float64)


@every_ordered
def test_an_empty_piece_changes_nothing(key: tuple[str, bool]) -> None:
    mixer, x = build(key), tokens(9)
    state = mixer.scan(x, mixer.init_state(2))[1]
    y, after = mixer.scan(x[:, :0], state)
    assert y.shape == (2, 0, D_MODEL)
    z, _ = mixer.scan(tokens(5, seed=4), after)
    close(z, mixer.scan(tokens(5, seed=4), state)[0], torch.float64)


@every_ordered
@dtypes
def test_a_state_is_never_changed_in_place(key: tuple[str, bool], dtype: torch.dtype) -> None:
    mixer, x = build(key, dtype), tokens(9, dtype)
    with torch.no_grad():
        state = mixer.scan(x, mixer.init_state(2))[1]
        copies = [tensor.clone() for tensor in flat(state)]
        mixer.scan(x, state)
        mixer.step(x[:, 0], state)
    for tensor, copy in zip(flat(state), copies, strict=True):
        assert torch.equal(tensor, copy)


@every_ordered
def test_the_state_does_not_grow(key: tuple[str, bool]) -> None:
    mixer = build(key)
    sizes = [sum(tensor.numel() for tensor in flat(mixer.scan(tokens(n), mixer.init_state(2))[1])) for n in (512, 1024)]
    assert sizes[0] == sizes[1] > 0


# local


@every_local
@dtypes
@all_cuts
def test_pieces_with_halos_are_the_whole(key: tuple[str, bool], dtype: torch.dtype, cuts: tuple[int, ...]) -> None:
    mixer, x = build(key, dtype), tokens(LENGTH, dtype)
    behind, ahead = mixer.reach
    edges = [0, *cuts, LENGTH]
    outputs = [mixer.mix(x[:, i:j], x[:, max(0, i - behind) : i], x[:, j : j + ahead]) for i, j in pairwise(edges)]
    close(torch.cat(outputs, dim=1), mixer(x), dtype)


@every_local
def test_nothing_beyond_its_reach_matters(key: tuple[str, bool]) -> None:
    mixer, x = build(key), tokens(LENGTH)
    behind, ahead = mixer.reach
    before = mixer(x)
    changed = x.clone()
    changed[:, 30] += 1
    difference = (mixer(changed) - before).abs().amax(dim=(0, 2))
    touched = difference.gt(1e-12).nonzero().flatten()
    assert touched.min().item() == max(0, 30 - ahead)
    assert touched.max().item() == min(LENGTH - 1, 30 + behind)
