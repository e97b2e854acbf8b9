"""Losses on two views or two modalities of each item."""
