"""Schedules for CUDA: what a block does, what a thread, and how threads meet."""
