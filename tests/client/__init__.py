"""Tests of the SDK: against a stand-in for the server, and against a server process."""
