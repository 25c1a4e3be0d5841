"""The only place where the layers meet: a request record in, a result record out."""
