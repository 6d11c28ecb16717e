"""A page in the browser that answers with the scene graph of a photograph."""
