"""The model side: load, check, tokenise, find sites, capture."""
