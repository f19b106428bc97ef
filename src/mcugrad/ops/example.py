"""Small graphs for the generic op tests: odd shapes, edges, saturation."""
