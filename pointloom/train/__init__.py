"""Training: the loop, optimiser and schedules, checkpoints, parallel runs, tracking."""
