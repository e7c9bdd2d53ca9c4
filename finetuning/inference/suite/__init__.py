"""Public benchmarks, through lm-evaluation-harness: its tasks, its prompts and its scores, of this program's models."""
