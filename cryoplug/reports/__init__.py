"""Reports for people: figures, tables, pages, and a verdict in words."""
