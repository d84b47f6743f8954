"""Models of Transformers with random weights give the same with Linocut's kernels: prefill, decoding, training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from linocut.mixers import accelerate, hugging_face

VOCABULARY = 50

SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
ATTENTION = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 48}


def mamba() -> nn.Module:
    return transformers.MambaForCausalLM(transformers.MambaConfig(**SMALL, state_size=8))


def falcon_mamba() -> nn.Module:
    return transformers.FalconMambaForCausalLM(transformers.FalconMambaConfig(**SMALL, state_size=8))


def mamba2() -> nn.Module:
    config = transformers.Mamba2Config(
        **SMALL, num_heads=4, head_dim=16, state_size=8, n_groups=2, expand=2, chunk_size=16
    )
    return transformers.Mamba2ForCausalLM(config)


def recurrent_gemma() -> nn.Module:
    sizes = {**SMALL, **ATTENTION, "num_hidden_layers": 3}
    config = transformers.RecurrentGemmaConfig(**sizes, lru_width=32, attention_window_size=16)
    return transformers.RecurrentGemmaForCausalLM(config)


def qwen3_next() -> nn.Module:
    config = transformers.Qwen3NextConfig(
        **SMALL,
        **ATTENTION,
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    )
    return transformers.Qwen3NextForCausalLM(config)


def jamba() -> nn.Module:
    config = transformers.JambaConfig(
        **SMALL,
        **{name: size for name, size in ATTENTION.items() if name != "head_dim"},
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=1,
        num_experts_per_tok=1,
        mamba_d_state=8,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    )
    return transformers.JambaForCausalLM(config)


def bamba() -> nn.Module:
    config = transformers.BambaConfig(
        **SMALL,
        **{name: size for name, size in ATTENTION.items() if name != "head_dim"},
        attn_layer_indices=[1],
        mamba_n_heads=4,
        mamba_d_head=16,
        mamba_n_groups=2,
        mamba_d_state=8,
        mamba_chunk_size=16,
    )
    return transformers.BambaForCausalLM(config)


MODELS = {make.__name__: make for make in (mamba, falcon_mamba, mamba2, recurrent_gemma, qwen3_next, jamba, bamba)}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
Maker = Callable[[], nn.Module]


def pair(make: Maker) -> tuple[Any, Any]:
    """A model as it ships, and a copy with the kernels in it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = make().eval()
        for parameter in plain.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    fast = copy.deepcopy(plain)
    assert accelerate(fast)
    return plain, fast


def tokens(length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(seed))


@every_model
def test_logits_are_the_same(make: Maker) -> None:
    plain, fast = pair(make)
    for length in (1, 5, 70):
        ids = tokens(length)
        torch.testing.assert_close(fast(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)


@every_model
def test_padding_is_the_same(make: Maker) -> None:
    plain, fast = pair(make)
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[0, :6] = 0
    logits = [model(tokens(20), attention_mask=mask).logits for model in (plain, fast)]
    torch.testing.assert_close(logits[1][:, 6:], logits[0][:, 6:], rtol=1e-4, atol=1e-4)


@every_model
def test_decoding_with_a_cache_is_the_same(make: Maker) -> None:
    plain, fast = pair(make)
    with torch.no_grad():
        texts = [
            model.generate(tokens(9), max_new_tokens=12, do_sample=False, use_cache=True, pad_token_id=0)
            for model in (plain, fast)
        ]
        scores = [model(texts[0]).logits for model in (plain, fast)]
    assert torch.equal(texts[0], texts[1])
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=1e-4)


@every_model
def test_training_gradients_are_the_same(make: Maker) -> None:
    gradients = []
    for model in pair(make):
        model.train()
        ids = tokens(40)
        model(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, plain in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], plain, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@every_model
def test_no_word_of_slow_paths_is_left(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers warns once a process of every function that it runs in its reference form."""
    warned: list[str] = []
    monkeypatch.setattr(logging.Logger, "warning_once", lambda _, *args: warned.append(str(args[0])))
    plain, fast = pair(make)
    for model, words in ((plain, make is not recurrent_gemma), (fast, False)):
        warned.clear()
        with torch.no_grad():
            model.generate(tokens(9), max_new_tokens=3, do_sample=False, pad_token_id=0)
        model.train()
        model(tokens(9), use_cache=False)
        assert any("falling back" in word for word in warned) == words


@pytest.mark.parametrize("name", ["mamba_selective_scan", "mamba2_chunk_scan", "mamba2_split_conv1d_scan_combined",
                                  "torch_chunk_gated_delta_rule", "causal_conv1d_fn"])  # fmt: skip
def test_packed_sequences_are_refused(name: str) -> None:
    inputs = [torch.zeros(1, 2, 1, 1)] * (2 if name == "causal_conv1d_fn" else 6)
    with pytest.raises(ValueError, match="packed sequences cannot be kept apart, got seq_idx"):
        hugging_face._SWAPS[name](*inputs, seq_idx=torch.zeros(1, 2))


@every_model
def test_bfloat16_runs_and_stays_near(make: Maker) -> None:
    plain, fast = pair(make)
    expected = plain(tokens(30)).logits
    found = fast.bfloat16()(tokens(30)).logits
    assert (found.float() - expected).abs().mean() < 0.05 * expected.abs().max()


@every_model
def test_other_models_of_the_process_are_left_alone(make: Maker) -> None:
    plain, fast = pair(make)
    named = dict(fast.named_modules())
    for name in accelerate(copy.deepcopy(plain)):
        assert {"forward", "_rnn_scan"} & vars(named[name]).keys()
    for module in plain.modules():
        assert not {"forward", "_rnn_scan"} & vars(module).keys()


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no layer to speed up; it takes models of transformers >= 5"):
        accelerate(nn.Linear(2, 2))


@pytest.mark.parametrize("make", [mamba, recurrent_gemma])
def test_a_saved_model_loads_and_gives_the_same(make: Maker, tmp_path: Path) -> None:
    _, fast = pair(make)
    expected = fast(tokens(12)).logits
    torch.save(fast, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    torch.testing.assert_close(loaded(tokens(12)).logits, expected, rtol=1e-4, atol=1e-4)
