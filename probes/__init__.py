"""What touches a model: loading, capture, and one file for each probe."""
