"""The store: one DuckDB file with tensors and result tables. Knows no model."""

from cache.errors import (
    RunAbsent,
    SessionAbsent,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreLocked,
    StoreNewer,
    StoreUnavailable,
    TensorAbsent,
)
from cache.files import move_aside
from cache.home import home, store_path
from cache.keys import canonical_json, digest
from cache.prompt_store import PROMPT_TABLES
from cache.results import TABLES
from cache.saes import SAE_TABLES
from cache.session_rules import Item, Session
from cache.store import FILE_BUDGET, MEMORY_BUDGET, Store

__all__ = [
    "FILE_BUDGET",
    "MEMORY_BUDGET",
    "PROMPT_TABLES",
    "SAE_TABLES",
    "TABLES",
    "Item",
    "RunAbsent",
    "Session",
    "SessionAbsent",
    "Store",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreForeign",
    "StoreFull",
    "StoreLocked",
    "StoreNewer",
    "StoreUnavailable",
    "TensorAbsent",
    "canonical_json",
    "digest",
    "home",
    "move_aside",
    "store_path",
]
