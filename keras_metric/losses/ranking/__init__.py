"""Losses on the ranked list of an anchor's references."""
