"""Shapes and types are checked at every call in tests; models are tiny and random, or the embedded one."""

from jaxtyping import install_import_hook

install_import_hook(["analysis", "probes", "cache"], "beartype.beartype")
