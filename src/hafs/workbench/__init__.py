"""The workbench: the page that shows a workspace live, lets people look through it, and takes what they decide.

Every view is a function from the workspace to a `View` (`view.py`); the workspace is the only state, so the page can be
closed, killed and opened at any time. `app.py` puts the views behind the annotation page's door and gate.
"""
