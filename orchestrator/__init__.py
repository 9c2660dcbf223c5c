"""The tournament itself: config, rounds, verdicts, record, tracking, report, command line."""
