"""Losses on pairs with a graded similarity."""
