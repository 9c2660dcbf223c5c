"""Workers on Ray: joining or starting it, what nodes there are, whose turn it is, processes and gangs."""
