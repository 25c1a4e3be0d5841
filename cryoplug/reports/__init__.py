"""What people read: figures, tables, and a verdict in words."""
