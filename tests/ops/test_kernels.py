"""The compiled kernels as a library: instruction sets, threads of one runtime, and torch's compilers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mixers.zoo import ZOO

needs_kernels = pytest.mark.usefixtures("kernels")


def python(code: str) -> str:
    """What a fresh interpreter prints, without the run-time type checks of the tests."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_an_instruction_set_can_be_chosen(kernels: Any) -> None:
    before = kernels.isa()
    assert before == kernels.isas()[-1], "the widest is the default"
    try:
        for isa in kernels.isas():
            kernels.use_isa(isa)
            assert kernels.isa() == isa
    finally:
        kernels.use_isa(before)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the list of what the processor has is Linux's")
def test_products_of_bfloat16_are_used_where_the_processor_has_them(kernels: Any) -> None:
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    isas = kernels.isas()
    assert ("v4bf16" in isas) == ("v4" in isas and "avx512_bf16" in flags.split())


def test_an_instruction_set_that_is_not_there_is_refused(kernels: Any) -> None:
    with pytest.raises(ValueError, match=rf"must be one of {', '.join(kernels.isas())} on this machine, got v9"):
        kernels.use_isa("v9")


@needs_kernels
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the list of mapped files is Linux's")
@pytest.mark.parametrize("first", ["import torch", "from linocut.data import rle", "from linocut import native"])
def test_one_copy_of_the_openmp_runtime_is_mapped(first: str) -> None:
    code = f"""
{first}
import torch
from linocut.ops.linear_recurrence import linear_recurrence
torch.set_num_threads(2)
linear_recurrence(torch.ones(2, 9, 200), torch.ones(2, 9, 200))
torch.ones(1000, 1000) @ torch.ones(1000, 1000)
print(*{{line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line or "libomp" in line}})
"""
    assert len(python(code).split()) == 1


# Whether a product may be a denormal number, and whether one counts as a factor. Nothing here is a constant that Python
# works out as it compiles; the denormal is made of its bits, since arithmetic that makes it may be what is broken.
DENORMALS = """
import struct, sys, torch
{first}
(least,) = struct.unpack("<d", (1).to_bytes(8, "little"))
print(sys.float_info.min * 0.5 != 0, least * 2.0**60 != 0)
"""


@needs_kernels
def test_denormals_survive_loading_the_kernels() -> None:
    code = DENORMALS.format(first="from linocut import native; native.kernels().isas()")
    assert python(code) == "True True\n"


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="torch cannot flush denormals on this processor")
def test_denormals_that_are_flushed_are_noticed() -> None:
    assert python(DENORMALS.format(first="torch.set_flush_denormal(True)")) == "False False\n"


COMPILE = """
import sys, torch
from linocut import mixers
torch.manual_seed(0)
torch.set_num_threads(1)
for name, causal, options in {zoo!r}:
    mixer = mixers.build(name, 12, causal=causal, **options).eval()
    x = torch.randn(2, 37, 12)
    expected = mixer(x)
    torch._dynamo.reset()
    found = torch.compile(mixer, fullgraph=True, backend="aot_eager")(x)
    assert torch.allclose(found, expected, atol=1e-4), name
    found.square().sum().backward()
    assert any(p.grad is not None for p in mixer.parameters()), name
    exported = torch.export.export(mixer, (x,)).module()(x)
    assert torch.allclose(exported, expected, atol=1e-4), name
    print(name)
"""


@pytest.mark.slow
def test_every_mixer_compiles_in_one_graph_and_exports() -> None:
    zoo = [(name, causal, options) for (name, causal), options in sorted(ZOO.items())]
    assert len(python(COMPILE.format(zoo=zoo)).split()) == len(zoo)
