"""A server that is attacked from all sides at once, in network namespaces, and what must hold meanwhile."""
