"""Schedules: one file for each target, over shared readings of nests."""
