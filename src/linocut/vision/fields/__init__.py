"""Receptive fields: what an output depends on (in theory), and how much (in effect).

From the bottom up: ``algebra`` (sets of indices that repeat), ``lanes`` (axes of the image in a tensor), ``calls``,
``windows``, ``shapes`` and ``rules`` (what operations do to them), ``trace`` (following a module), ``probe`` (measuring
one), ``receptive_field`` (the public function), ``effective`` (gradients) and ``plots``.
"""
