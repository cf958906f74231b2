"""Tests of DTLS: its tables and states on fakes, and real Connections in memory."""
