"""Active regions of known truth: their field, how HMI would see it, their keywords."""
