"""Contract tests that third parties inherit."""
