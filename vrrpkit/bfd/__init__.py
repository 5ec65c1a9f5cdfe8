"""Bidirectional Forwarding Detection: whether a neighbour can be reached, known in milliseconds."""
