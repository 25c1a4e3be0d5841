"""The thin click skin: parse, build a request, call one workflow, print the result."""
