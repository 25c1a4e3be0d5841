"""The road of large images and of CPUs: band of rows by band of rows, in bounded memory."""
