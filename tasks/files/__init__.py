"""Files and objects that a user names or that are made once: atomic writes, the cache, object stores."""
