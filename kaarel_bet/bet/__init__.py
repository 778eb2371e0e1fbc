"""Bets: a question in one YAML file, from its data to its verdict. Pure: no network, no model."""
