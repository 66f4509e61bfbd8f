"""From shards to vectors of the real archive, and generated patches that are looked up in it."""
