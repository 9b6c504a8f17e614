"""The report: numbers, pictures and honest sentences from what the earlier stages left behind."""
