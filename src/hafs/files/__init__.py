"""Files: JSON lines read and written whole, what is fetched at pinned hashes, locks."""
