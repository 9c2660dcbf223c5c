"""Where work runs and where files lie: workers on Ray or in this process, atomic storage. Knows no tournaments."""
