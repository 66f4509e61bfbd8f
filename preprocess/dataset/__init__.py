"""From files in the archive to a dataset: candidates, groups, shards, tables, checks."""
