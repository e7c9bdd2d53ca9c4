"""The device that a run computes on: its memory and precision."""
