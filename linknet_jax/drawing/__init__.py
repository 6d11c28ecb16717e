"""Pictures of scene graphs: one description of shapes, written as PNG, SVG or a page to explore."""
