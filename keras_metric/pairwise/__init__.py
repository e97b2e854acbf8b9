"""Computations on all pairs or triplets of one batch, in blocks of rows with exact gradients."""
