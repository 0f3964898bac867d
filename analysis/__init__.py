"""Pure maths of the dashboard: tensors in, frozen dataclasses or tables out. No model, no store, no web."""
