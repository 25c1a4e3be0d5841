"""The road for large images and CPUs: one band of rows after another, in bounded memory."""
