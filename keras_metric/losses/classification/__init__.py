"""Losses with class vectors, proxies or prototypes."""
