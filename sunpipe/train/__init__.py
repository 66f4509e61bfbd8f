"""Training loops; the only place that knows DeepSpeed."""
