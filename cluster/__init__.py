"""Where work runs and where files lie: Ray, pools of warm actors, atomic storage. Knows no tournaments."""
