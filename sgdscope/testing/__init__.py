"""Oracles: simulated studies and a model whose every answer has a closed form."""
