"""The trainer's worker process: owns the model, samples, trains, evaluates."""
