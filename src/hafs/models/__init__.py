"""Models on disk: their names and hashes, loading, chat templates, what each was trained on."""
