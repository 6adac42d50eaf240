"""The command `lines`, one file for each subcommand: options in, one call, a table out."""
