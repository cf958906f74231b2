"""Tests of the network in a box."""
