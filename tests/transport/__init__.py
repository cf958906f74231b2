"""The port and its parts."""
