"""Tuned lenses: trained here or elsewhere, kept in the format of the package tuned-lens."""
