"""What a log or a store tells people: questions, streams, reasons, measures. Nothing is written."""
