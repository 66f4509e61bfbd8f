"""Talks to the cluster: profiles, submission, stage graph, a one-machine Slurm; no torch."""
