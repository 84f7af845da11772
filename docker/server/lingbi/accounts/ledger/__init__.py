"""How what requests use gets into the database: by a journal on disk, so that neither a kill nor a cut loses any of it."""
