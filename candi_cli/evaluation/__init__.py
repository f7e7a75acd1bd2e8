"""How good predictions are: arrays in, numbers out; no model, no store, no file."""
