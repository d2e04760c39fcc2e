"""The page: the annotation service in a browser."""
