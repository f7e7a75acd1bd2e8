"""What is judged: regions, observed tracks beside predicted ones, and tables of scores; no model, no page."""
