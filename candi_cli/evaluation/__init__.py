"""Scores: arrays in, numbers out; no model, store or file is known here."""
