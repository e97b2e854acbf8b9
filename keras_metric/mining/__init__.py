"""Strategies that choose pairs and triplets of a batch, and the miners that use them."""
