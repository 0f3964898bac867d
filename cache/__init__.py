"""The store: one DuckDB file with tensors and result tables. Knows no model."""
