"""How shapes and types are checked while the tests run.

Every annotated function of linocut is checked with jaxtyping and beartype. A function may be called with what its
annotations forbid, because the tests ask for its own clear error; so arguments are not checked before the call. After
it, arguments and result are checked together: a function that quietly accepts what it says it does not take, or returns
what it says it does not return, fails the test.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep3119Exception

# An int is a float here, as it is for type checkers (PEP 484).
_CONF = BeartypeConf(is_pep484_tower=True)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a stand-in that jaxtyping makes of a function: one before the call, which returns Any, and one after."""
    if inspect.signature(function).return_annotation is Any:
        return function
    try:
        return beartype(function, conf=_CONF)
    except BeartypeDecorHintPep3119Exception:
        # A Protocol that is not runtime_checkable cannot be asked about; mypy has checked it.
        return function
