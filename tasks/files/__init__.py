"""Files: cache, object stores, fetched models, atomic writes, checksums."""
