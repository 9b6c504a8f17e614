"""From files to the prepared store: loaders, sampling, worker processes, shards and the synthetic generator."""
