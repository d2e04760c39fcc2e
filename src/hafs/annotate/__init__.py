"""People: the annotation service, and its two faces, the page and the terminal."""
