"""Where work runs and where files lie: workers on Ray or in this process, placement, the store.

And, below both competitors and evaluation, what training and scoring share: errors, records, resources, how a row
becomes tokens, digests, the tie rule. Imports no other room; knows neither tournaments, competitors nor held-out rows.
"""
